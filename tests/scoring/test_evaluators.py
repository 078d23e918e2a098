"""The automatic method: windows where the cost model promises enough, else the network itself."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxviz import occlude
from jaxviz.perturbation.grid import make_grid
from jaxviz.scoring.choice import choose_evaluators, expected_seconds
from jaxviz.scoring.evaluators import Dense, Incremental, make_evaluator
from jaxviz.scoring.scorer import split
from jaxviz.scoring.task import Task

GRID = make_grid((96, 96), patch=8, stride=2)


def network(groups, images, *kernels, reduced=True):
    """Convolutions 3×3, and the mean of the last one."""
    for kernel in kernels:
        count = kernel.shape[3] if groups else 1
        numbers = ("NHWC", "HWIO", "NHWC")
        images = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=count
        )
    return images.mean((1, 2)) if reduced else images


def task_of(f, grid=GRID, channels=64):
    positions = grid.starts.reshape(-1, 2)
    images = np.zeros((1, *grid.image_shape, channels), np.float32)
    return Task(split(f), (Dense(),), None, images, positions)


def convolutions(groups=False):
    kernels = [jnp.zeros((3, 3, 1 if groups else 64, 64), jnp.float32)] * 3
    return Partial(lambda kernels, images: network(groups, images, *kernels), kernels)


def test_a_long_run_takes_windows():
    evaluators = choose_evaluators("auto", GRID, task_of(convolutions()), "cpu")
    assert evaluators == (Incremental.on_grid(GRID),)


def few_channels(images):
    """Two convolutions of 4 channels with pools: little to do for each pixel, on many pixels."""
    for channels in (3, 4):
        images = network(False, images, jnp.zeros((3, 3, channels, 4)), reduced=False)
        images = jax.lax.reduce_window(
            images, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    return images.mean((1, 2))


def test_few_channels_on_a_large_image_take_windows():
    grid = make_grid((512, 512), patch=32, stride=32)
    task = task_of(few_channels, grid, channels=3)
    assert choose_evaluators("auto", grid, task, "cpu") == (Incremental.on_grid(grid),)
    dense, incremental = expected_seconds(grid, task, "cpu")
    assert dense > 2 * incremental


def test_several_images_weigh_against_compiling():
    grid = make_grid((96, 96), patch=8, stride=48)
    task = task_of(convolutions(), grid)
    many = replace(task, images=np.broadcast_to(task.images, (2000, *task.images.shape[1:])))
    assert choose_evaluators("auto", grid, task, "cpu") == (Dense(),)
    assert choose_evaluators("auto", grid, many, "cpu") == (Incremental.on_grid(grid),)


@pytest.mark.slow
def test_the_choice_ignores_what_is_compiled():
    f = convolutions()
    grid = make_grid((24, 24), patch=8, stride=8)
    images = np.zeros((1, 24, 24, 64), np.float32)
    task = task_of(f, grid)
    before = choose_evaluators("auto", grid, task, "cpu")
    for method in ("dense", "incremental"):
        occlude(f, images, patch=8, method=method)
    assert choose_evaluators("auto", grid, task, "cpu") == before


def test_a_short_run_is_dense():
    grid = make_grid((96, 96), patch=8, stride=48)
    task = task_of(convolutions(), grid)
    assert choose_evaluators("auto", grid, task, "cpu") == (Dense(),)


def test_a_network_that_mixes_all_pixels_first_is_dense():
    f = Partial(lambda kernel, images: images.reshape(1, -1) @ kernel, jnp.zeros((96 * 96, 999)))
    assert choose_evaluators("auto", GRID, task_of(f, channels=1), "cpu") == (Dense(),)


def test_on_a_cpu_depthwise_layers_count_for_more_than_their_operations():
    task = task_of(convolutions(groups=True))
    assert choose_evaluators("auto", GRID, task, "cpu") == (Incremental.on_grid(GRID),)
    assert choose_evaluators("auto", GRID, task, "gpu") == (Dense(),)


@pytest.mark.parametrize(("method", "evaluator"), [("dense", Dense()), ("incremental", None)])
def test_a_named_method_is_the_only_one(method, evaluator):
    evaluators = choose_evaluators(method, GRID, None, "cpu")
    assert evaluators == (evaluator or Incremental.on_grid(GRID),)


def test_to_be_measured_both_are_returned_the_expected_one_first():
    task = task_of(convolutions())
    both = choose_evaluators("auto", GRID, task, "cpu", measure=True)
    assert both == (Incremental.on_grid(GRID), Dense())
    assert choose_evaluators("dense", GRID, task, "cpu", measure=True) == (Dense(),)


@pytest.mark.slow
def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match='`method` must be "auto", "dense" or "incremental"'):
        make_evaluator("sparse", GRID)
