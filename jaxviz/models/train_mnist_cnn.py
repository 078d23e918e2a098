"""Train the bundled network: `python -m jaxviz.models.train_mnist_cnn --mnist mnist.npz`.

The Keras MNIST CNN of the well-known tutorial, trained by Keras 3 on the JAX backend on MNIST's
60 000 training images and the first half of the enlarged UCI digits. Each step sees every image
moved by up to two pixels and then pushed, within an L2 ball, in the direction that raises the loss
most (one-step adversarial training, Goodfellow et al. 2015, arXiv:1412.6572). A network trained so
keeps its accuracy, and what maximises its classes looks like digits; without it, it looks like
noise (Engstrom et al. 2019, arXiv:1906.00945). The same seed gives the same file on one machine.
"""

import argparse
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np

from jaxviz.datasets import load_digits, load_mnist

MAX_SHIFT = 2
MAX_PUSH = 2.0  # L2 radius; a digit has a norm of about 9


def build() -> keras.Sequential:
    """Return the untrained network: (N, 28, 28, 1) in [0, 1] -> (N, 10) probabilities."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", name="conv2d"),
            layers.Conv2D(64, 3, activation="relu", name="conv2d_1"),
            layers.MaxPooling2D(2, name="max_pooling2d"),
            layers.Dropout(0.25, name="dropout"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="dense"),
            layers.Dropout(0.5, name="dropout_1"),
            layers.Dense(10, activation="softmax", name="preds"),
        ],
        name="mnist_cnn",
    )


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Move each image (N, 28, 28, 1) by its own whole number of pixels, filling with black."""

    def move(image: jax.Array, shift: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(
            jnp.pad(image, ((2, 2), (2, 2), (0, 0))), (*shift, 0), image.shape
        )

    shifts = jax.random.randint(key, (len(images), 2), 0, 2 * MAX_SHIFT + 1)
    return jax.vmap(move)(images, shifts)


def cross_entropy(probabilities: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean of -log p(label) over the batch."""
    picked = jnp.take_along_axis(probabilities, labels[:, None], axis=-1)
    return -jnp.mean(jnp.log(picked + 1e-7))


def make_step(model: keras.Model, optimizer: keras.optimizers.Optimizer):
    """Return the compiled step: (key, state, images, labels) -> (state, loss)."""

    def loss(trainable, fixed, images, labels, training=True):
        probabilities, fixed = model.stateless_call(trainable, fixed, images, training=training)
        return cross_entropy(probabilities, labels), fixed

    def push(key, trainable, fixed, images, labels):
        key_start, key_radius = jax.random.split(key)
        start = images + 0.05 * jax.random.normal(key_start, images.shape)
        gradient, _ = jax.grad(loss, argnums=2, has_aux=True)(
            trainable, fixed, start, labels, False
        )
        norm = jnp.sqrt(jnp.sum(gradient**2, (1, 2, 3), keepdims=True))
        radius = jax.random.uniform(key_radius, norm.shape, maxval=MAX_PUSH)
        return jnp.clip(start + radius * gradient / (norm + 1e-12), 0, 1)

    @jax.jit
    def step(key, state, images, labels):
        trainable, fixed, moments = state
        key_move, key_push = jax.random.split(key)
        images = push(key_push, trainable, fixed, augment(key_move, images), labels)
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, fixed), gradients = gradient(trainable, fixed, images, labels)
        trainable, moments = optimizer.stateless_apply(moments, gradients, trainable)
        return (trainable, fixed, moments), value

    return step


def train(images: np.ndarray, labels: np.ndarray, *, epochs: int, batch: int, seed: int):
    """Return a trained network; images (N, 28, 28, 1) in [0, 1], labels (N,)."""
    keras.utils.set_random_seed(seed)
    model = build()
    steps = len(images) // batch
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, epochs * steps - steps // 2, warmup_target=2e-3, warmup_steps=steps // 2
    )
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(model.trainable_variables)
    step = make_step(model, optimizer)
    state = tuple(
        [variable.value for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    )
    order, key = np.random.default_rng(seed), jax.random.key(seed)
    for epoch in range(epochs):
        for rows in order.permutation(len(images))[: steps * batch].reshape(steps, batch):
            key, subkey = jax.random.split(key)
            state, loss = step(subkey, state, images[rows], labels[rows])
        print(f"epoch {epoch + 1}/{epochs}: loss {float(loss):.3f}", flush=True)
    for variable, value in zip(model.trainable_variables, state[0], strict=True):
        variable.assign(value)
    return model


def accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose largest probability is at their label."""
    return float(np.mean(np.argmax(model.predict(images, verbose=0), -1) == labels))


def main() -> None:
    """Train, report the accuracy on unseen digits, and save."""
    parser = argparse.ArgumentParser(description="Train the bundled MNIST network.")
    parser.add_argument("--mnist", help="MNIST as an .npz; default: the cached download")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("mnist_cnn.keras"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=108)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sets = [load_mnist(args.mnist, "train"), load_digits("train")]
    images, labels = (np.concatenate(parts) for parts in zip(*sets, strict=True))
    model = train(images, labels, epochs=args.epochs, batch=args.batch, seed=args.seed)
    for name, test in {"MNIST": load_mnist(args.mnist, "test"), "UCI": load_digits("test")}.items():
        print(f"{name} test: {100 * accuracy(model, *test):.2f} % of {len(test[1])}")
    model.save(args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
