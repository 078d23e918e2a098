"""What a result says by itself when something smells wrong, and that it is silent otherwise."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    "the images lie in .* takes white as 255": TakesBytes(),
}


@pytest.mark.parametrize("message", list(CASES))
def test_what_smells_is_told_in_a_sentence(message):
    images = IMAGES[:1] if message.startswith("no position") else IMAGES
    notes = occlude(CASES[message], images, patch=4).notes
    assert len(notes) in (1, 2)
    assert any(re.search(message, note) for note in notes), notes
    assert all(note.endswith(".") and "\n" not in note for note in notes)


@pytest.mark.slow
def test_a_sound_result_says_nothing():
    assert occlude(plain, IMAGES, patch=4).notes == ()
    assert occlude(TakesBytes(), IMAGES * 255, patch=4).notes == ()
    assert occlude(plain, IMAGES[0], patch=4).notes == ()
