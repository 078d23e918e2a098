"""Models of Keras itself, and models of sequences, wherever a model of ours may stand."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers

import jaxviz as jv
from jaxviz import keras_vis
from jaxviz.jaxpr.split import as_model
from jaxviz.keras import KerasModel, from_keras, logits, summary

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def built(*parts, shape):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input(shape), *parts])


def small():
    head = layers.Dense(3, activation="softmax", name="preds")
    return built(
        layers.Conv2D(2, 3, name="conv"), layers.Flatten(name="flat"), head, shape=(5, 5, 1)
    )


@pytest.mark.slow
def test_a_model_of_keras_serves_as_its_conversion(rng, capsys):
    theirs = small()
    ours = from_keras(theirs)
    images = rng.normal(size=(1, 5, 5, 1)).astype(np.float32)
    assert list(jv.activations(theirs, images)) == ["conv", "flat", "preds"]
    found, expected = (jv.occlude(model, images, patch=4).scores for model in (theirs, ours))
    np.testing.assert_array_equal(found, expected)
    y, update = jv.incremental(theirs, images[0], (4, 4))
    np.testing.assert_allclose(y, ours(images)[0], atol=1e-6)
    seen = [
        keras_vis.visualize_saliency(model, "preds", 0, images[0], backprop_modifier="guided")
        for model in (theirs, ours)
    ]
    np.testing.assert_array_equal(*seen)
    assert logits(theirs).layer_names == ours.layer_names
    summary(theirs)
    assert "preds (Dense)" in capsys.readouterr().out


def test_a_model_of_keras_is_converted_again_when_it_changes(rng):
    theirs = small()
    first = as_model(theirs)
    assert isinstance(first, KerasModel) and as_model(theirs) is first
    theirs.layers[-1].set_weights([2 * w for w in theirs.layers[-1].get_weights()])
    second = as_model(theirs)
    np.testing.assert_array_equal(second.preds.kernel[...], 2 * first.preds.kernel[...])
    theirs.layers[-1].activation = keras.activations.linear  # keras-vis's way
    x = rng.normal(size=(1, 5, 5, 1)).astype(np.float32)
    np.testing.assert_allclose(as_model(theirs)(x), logits(second)(x), atol=1e-6)


@pytest.mark.slow
def test_a_model_of_keras_with_an_unknown_layer_stays_as_it_is():
    theirs = built(layers.LSTM(2), shape=(3, 2))
    assert as_model(theirs) is theirs and as_model(jnp.tanh) is jnp.tanh


def sequences():
    pool, head = layers.GlobalAveragePooling1D(), layers.Dense(2, name="preds")
    return from_keras(built(layers.Conv1D(3, 3, name="conv"), pool, head, shape=(7, 2)))


@pytest.mark.slow
def test_sequences_are_images_of_one_row(rng):
    model, x = sequences(), rng.normal(size=(1, 7, 2)).astype(np.float32)
    assert model.image_shape == (1, 7, 2) and model.input_shape == (7, 2)
    np.testing.assert_array_equal(model(x[:, None]), model(x))
    scores = jv.occlude(model, x[:, None], patch=(1, 3), stride=(1, 2), method="dense").scores
    for n, start in enumerate((0, 2, 4)):
        covered = x.copy()
        covered[:, start : start + 3] = 0
        np.testing.assert_allclose(scores[0, 0, n], model(covered)[0], atol=1e-6)
    drawn = jv.maximize(model, jv.objectives.unit(0), key=jax.random.key(0), steps=1)
    assert drawn.images.shape[-3:] == (1, 7, 2)
    shown = keras_vis.visualize_saliency(model, "preds", 0, x)
    assert shown.shape == (1, 7)


@pytest.mark.slow
def test_vectors_are_images_of_one_row_and_channel(rng):
    model = from_keras(built(layers.Dense(2), shape=(6,)))
    x = rng.normal(size=(1, 6)).astype(np.float32)
    assert model.image_shape == (1, 6, 1)
    np.testing.assert_array_equal(model(x[:, None, :, None]), model(x))
    with pytest.raises(ValueError, match=r"\(batch, 6\): got \(1, 6, 1\); images of one row are"):
        model(x[..., None])
