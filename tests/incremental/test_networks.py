"""Whole networks, small: updates equal dense evaluation at positions all over the image."""

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx

from jaxviz import from_keras, logits
from jaxviz.incremental import base, incremental, make_plan, update
from jaxviz.incremental.interpret import paste

MOBILE = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 12, 2, 2))
EFFICIENT = ((1, 8, 1, 1, 3), (6, 8, 2, 2, 5))
NETWORKS = {
    "mnist": (networks.mnist_cnn, {}, (28, 28, 1), 5),
    "vgg16": (networks.vgg16, dict(widths=(8,) * 5, size=64, hidden=16, classes=5), (64, 64, 3), 9),
    "resnet18": (networks.resnet18, dict(width=4, classes=5), (70, 64, 3), 8),
    "resnet50": (networks.resnet50, dict(width=2, classes=5), (64, 75, 3), 8),
    "mobilenet": (networks.mobilenet_v2, dict(rows=MOBILE, last=16, classes=5), (61, 64, 3), 8),
    "efficientnet": (
        networks.efficientnet_b0,
        dict(rows=EFFICIENT, last=16, classes=5),
        (48, 48, 3),
        8,
    ),
    "densenet": (
        networks.densenet121,
        dict(depths=(2, 2, 2), growth=4, stem=8, classes=5),
        (64, 64, 3),
        8,
    ),
    "inception": (networks.inception_v3, dict(width=2, classes=5), (107, 107, 3), 8),
    "convnext": (
        networks.convnext,
        dict(depths=(1, 1, 2), widths=(8, 12, 16), classes=5),
        (64, 64, 3),
        8,
    ),
    "vit": (networks.vit, dict(size=32, patch=8, width=12, depth=2, classes=5), (32, 32, 3), 8),
}
MOSTLY_WINDOWED = {"mnist", "vgg16", "resnet18", "mobilenet", "densenet", "inception", "convnext"}


SLOW = {"inception", "convnext", "resnet50", "resnet18", "vit", "mobilenet"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NETWORKS],
)
def test_network_equals_dense(name, rng):
    make, options, shape, size = NETWORKS[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = make(nnx.Rngs(0), **options)
        image = jnp.asarray(rng.standard_normal(shape), jnp.float32)
        patch = jnp.asarray(rng.standard_normal((size, size, shape[2])) + 2, jnp.float32)
        plan = make_plan(model, image, (size, size), step=(7, 9), offset=(-3, 2))
        rows = np.arange(-3 - 7, shape[0] + 7, 7)
        columns = np.arange(2 - 9, shape[1] + 9, 9)
        starts = jnp.asarray([(row, column) for row in rows for column in columns], jnp.int32)

        @jax.jit
        def both(model, image, patch, starts):
            clean = base(plan, model, image)
            pasted = jax.vmap(lambda start: paste(image, patch, start))(starts)
            got = jax.vmap(lambda start: update(plan, clean, patch, start))(starts)
            return clean.scores, got, model(pasted)

        clean, got, wanted = both(model, image, patch, starts)
    scale = np.abs(np.asarray(wanted)).max()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * scale)
    assert np.abs(np.asarray(wanted) - np.asarray(clean)).max() > 1e-4 * scale
    windowed = [step for step in plan.body.steps if not step.reason]
    assert len(windowed) > 0
    if name in MOSTLY_WINDOWED:
        assert plan.flops_window < 0.7 * plan.flops_dense


APPLICATIONS = {
    "VGG16": 0.7,
    "ResNet50": 0.9,
    "MobileNetV2": 0.9,
    "InceptionV3": 0.9,
    "DenseNet121": 0.9,
    "EfficientNetB0": 1.0,
    "ConvNeXtTiny": 1.0,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", APPLICATIONS)
def test_application_of_keras_equals_dense(name, rng):
    keras = pytest.importorskip("keras")
    options = dict(weights=None, input_shape=(128, 128, 3), classes=10)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        built = getattr(keras.applications, name)(**options)
    model = logits(from_keras(built))
    image = jnp.asarray(rng.uniform(0, 255, (128, 128, 3)), jnp.float32)
    patch = jnp.zeros((12, 12, 3), jnp.float32)
    starts = jnp.asarray([(row, column) for row in (-8, 40, 120) for column in (-4, 64)])
    clean, step = model(image[None])[0], (8, 4)
    y, changed = incremental(model, image, (12, 12), step=step)
    got = jax.lax.map(lambda start: changed(patch, start), starts)
    wanted = model(jnp.stack([paste(image, patch, start) for start in starts]))
    scale = np.abs(np.asarray(wanted)).max()
    np.testing.assert_allclose(y, clean, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * scale)
    assert np.abs(np.asarray(wanted) - np.asarray(clean)).max() > 1e-4 * scale
    plan = make_plan(model, image, (12, 12), step=step)
    assert plan.flops_window < APPLICATIONS[name] * plan.flops_dense
