"""What a result says by itself when something smells wrong, and that it is silent otherwise."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.images.preprocessing import Preprocessing
from jaxviz.occlusion.occlude import occlude

IMAGES = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype(np.float32)


def plain(images):
    return images.mean((1, 2)) * jnp.ones((1, 3))


class TakesBytes:
    white = 255.0

    def __call__(self, images):
        return plain(images / 255)


CASES = {
    "no score is other than 0": lambda images: plain(images) * 0,
    "the scores are constant": lambda images: plain(images) * 0 + 2,
    "no position changes any score": lambda images: plain(jax.nn.relu(images - 5)) + 1,
    "all 6 images get class 2": lambda images: plain(images) + jnp.arange(3.0)[None] * 9,
    r"the images lie in .*1, but the model takes pictures in 0…255": TakesBytes(),
}


@pytest.mark.parametrize("message", list(CASES))
def test_what_smells_is_told_in_a_sentence(message):
    images = IMAGES[:1] if message.startswith("no position") else IMAGES
    notes = occlude(CASES[message], images, patch=4).notes
    assert len(notes) in (1, 2)
    assert any(re.search(message, note) for note in notes), notes
    assert all(note.endswith(".") and "\n" not in note for note in notes)


class TakesPhotographs:
    preprocessing = Preprocessing(scale=255, mean=(127.0,), std=(128.0,))

    def __call__(self, images):
        return plain(images)


@pytest.mark.parametrize(
    "model, low, high",
    [(TakesPhotographs(), 0, 255), (TakesPhotographs(), -100, 1), (jv.models.mnist_cnn(), 0, 255)],
)
def test_images_beyond_what_the_model_takes_are_told(model, low, high):
    images = np.random.default_rng(0).uniform(low, high, (2, 28, 28, 1)).astype(np.float32)
    (note,) = [n for n in occlude(model, images, patch=14).notes if "images lie" in n]
    assert "but the model takes pictures in" in note and "preprocess(photo, model)" in note


@pytest.mark.slow
def test_a_sound_result_says_nothing():
    assert occlude(plain, IMAGES, patch=4).notes == ()
    assert occlude(TakesBytes(), IMAGES * 255, patch=4).notes == ()
    assert occlude(plain, IMAGES[0], patch=4).notes == ()
    assert occlude(TakesPhotographs(), IMAGES * 3 - 1.5, patch=4).notes == ()
    # Between pictures and bytes nobody can tell.
    assert occlude(TakesPhotographs(), IMAGES, patch=4).notes == ()
