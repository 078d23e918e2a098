"""One position changes exactly the pixels that it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_paste

from jaxviz.perturbation.fills import constant, make_fill, patch_mean, soft
from jaxviz.perturbation.occluders import LabelOccluder, PatchOccluder

IMAGE = np.random.default_rng(0).uniform(size=(6, 8, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 4, (6, 8)).astype(np.int32)
GROUPS = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], bool)


def hidden(occluder, position):
    """The occluded image, in NumPy."""
    canvas = occluder.prepare(jnp.asarray(IMAGE))
    return np.asarray(occluder.hide(canvas, jnp.asarray(position)))


@st.composite
def patches(draw):
    """A patch shape and a start whose patch touches the image."""
    shape = draw(st.sampled_from([(1, 1), (2, 3), (6, 8)]))
    start = tuple(
        draw(st.integers(1 - w, d - 1)) for w, d in zip(shape, IMAGE.shape[:2], strict=True)
    )
    return shape, start


@pytest.mark.slow
@settings(max_examples=25)
@given(patches())
def test_only_the_patch_changes(at):
    shape, start = at
    wanted = slow_paste(IMAGE, start, shape, lambda row, col, channel: 9.0)
    np.testing.assert_array_equal(hidden(PatchOccluder(constant(9.0), shape), start), wanted)


@pytest.mark.slow
@settings(max_examples=25)
@given(patches())
def test_the_complement_is_everything_else(at):
    shape, start = at
    blank = np.full_like(IMAGE, 9.0)
    wanted = slow_paste(blank, start, shape, lambda *pixel: IMAGE[pixel])
    ours = hidden(PatchOccluder(constant(9.0), shape, complement=True), start)
    np.testing.assert_array_equal(ours, wanted)


@pytest.mark.slow
@settings(max_examples=25)
@given(patches(), st.sets(st.integers(0, 2), min_size=1))
def test_only_the_named_channels_change(at, channels):
    shape, start = at
    wanted = slow_paste(
        IMAGE, start, shape, lambda *pixel: 9.0 if pixel[2] in channels else IMAGE[pixel]
    )
    occluder = PatchOccluder(constant(9.0), shape, tuple(channels))
    np.testing.assert_array_equal(hidden(occluder, start), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("complement", [False, True])
def test_only_the_pixels_of_the_group_change(group, complement):
    occluder = LabelOccluder(
        constant(9.0), jnp.asarray(LABELS), jnp.asarray(GROUPS), complement=complement
    )
    ours = hidden(occluder, (group,))
    for row, col in np.ndindex(LABELS.shape):
        covered = GROUPS[group, LABELS[row, col]] != complement
        assert np.all(ours[row, col] == (9.0 if covered else IMAGE[row, col]))


@pytest.mark.parametrize("complement", [False, True])
def test_only_the_named_channels_of_the_group_change(complement):
    occluder = LabelOccluder(
        constant(9.0), jnp.asarray(LABELS), jnp.asarray(GROUPS), complement, channels=(0, 2)
    )
    ours = hidden(occluder, (1,))
    for row, col, channel in np.ndindex(IMAGE.shape):
        named = GROUPS[1, LABELS[row, col]] and channel in (0, 2)
        wanted = 9.0 if named != complement else IMAGE[row, col, channel]
        assert ours[row, col, channel] == wanted


def test_the_mean_of_a_group_is_of_its_own_pixels():
    occluder = LabelOccluder(patch_mean(), jnp.asarray(LABELS), jnp.asarray(GROUPS))
    on = GROUPS[1][LABELS]
    np.testing.assert_allclose(
        hidden(occluder, (1,))[on], IMAGE[on].mean(0)[None].repeat(on.sum(), 0), rtol=1e-5
    )


def test_a_soft_mask_fades_a_group_too():
    mask = np.linspace(0, 1, LABELS.size).reshape(LABELS.shape)
    occluder = LabelOccluder(soft(0.0, mask), jnp.asarray(LABELS), jnp.asarray(GROUPS))
    on = GROUPS[0][LABELS]
    wanted = np.where(on[..., None], IMAGE * (1 - mask[..., None]), IMAGE)
    np.testing.assert_allclose(hidden(occluder, (0,)), wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("fill", [0.5, "mean", "patch_mean", lambda under, start: under * 2])
def test_hide_composes_with_jit_and_vmap(fill):
    occluder = PatchOccluder(make_fill(fill), (3, 2))
    canvas = occluder.prepare(jnp.asarray(IMAGE))
    starts = jnp.asarray([(0, 0), (-1, 6), (4, 2)])
    many = jax.jit(jax.vmap(lambda start: occluder.hide(canvas, start)))(starts)
    for start, image in zip(starts, many, strict=True):
        np.testing.assert_allclose(image, occluder.hide(canvas, start), rtol=1e-6)


@pytest.mark.slow
def test_the_gradient_of_hidden_pixels_is_zero():
    occluder = PatchOccluder(constant(0.5), (3, 2))

    def total(image):
        return occluder.hide(occluder.prepare(image), jnp.asarray((1, 4))).sum()

    slope = jax.grad(total)(jnp.asarray(IMAGE))
    wanted = slow_paste(np.ones_like(IMAGE), (1, 4), (3, 2), lambda *pixel: 0)
    np.testing.assert_array_equal(slope, wanted)
