"""`explain` describes the run that `occlude` would make, in a summary or in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scorers import convolutional

from jaxviz.incremental import describe
from jaxviz.occlusion import score
from jaxviz.occlusion.explain import explain
from jaxviz.occlusion.occlude import occlude

IMAGE = jax.ShapeDtypeStruct((28, 28, 1), jnp.float32)
ONES = jnp.ones((3, 3, 1, 1), jnp.float32)


def convolve(images, kernel=ONES):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def spectrum(images):
    return jnp.abs(jnp.fft.fft2(images.astype(jnp.complex64), axes=(1, 2)))


def excited(images):
    """A squeeze-and-excitation between two convolutions."""
    x = convolve(images)
    x = x * jax.nn.sigmoid(x.mean((1, 2)))[:, None, None]
    return convolve(x).max((1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(patch=4),
        dict(patch=(4, 6), stride=(2, 3)),
        dict(patch=7, stride=3, margin=3),
        dict(patch=6, stride=5, border="shift"),
    ],
)
def test_the_plan_is_the_one_that_occlude_runs(options, monkeypatch):
    f, tasks = convolutional(), []
    execute = score.execute
    keep = lambda task, **rest: tasks.append(task) or execute(task, **rest)  # noqa: E731
    monkeypatch.setattr(score, "execute", keep)
    occlude(f, np.zeros(IMAGE.shape, np.float32), **options, method="incremental")
    (evaluator,) = tasks[0].evaluators
    plan = explain(f, IMAGE, **options)
    assert plan.body.patch[:2] == evaluator.patch
    assert tuple(at.step for at in plan.body.positions) == evaluator.step
    wanted = evaluator.plan(tasks[0].scorer.call, tasks[0].scorer.arrays, IMAGE)
    assert repr(plan) == repr(wanted) and describe(plan) == describe(wanted)


@pytest.mark.parametrize(
    "f, told",
    [
        (excited, "windows until equation 3: global mean of a squeeze-and-excitation"),
        (lambda x: convolve(x).mean((1, 2)), "windows until equation 3: global mean"),
        (lambda x: convolve(x).sum((1, 2)), "windows until equation 3: global sum"),
        (lambda x: convolve(x).max((1, 2)), "windows until equation 3: global maximum"),
        (lambda x: convolve(x).reshape(1, -1), "windows to the end"),
        (lambda x: spectrum(x).max((1, 2)), ": no rule for fft"),
        (lambda x: convolve(x)[..., 0], "windows to the end"),
    ],
)
def test_the_summary_says_where_windows_end_and_why(f, told, capsys):
    explain(f, IMAGE, patch=4)
    assert told in capsys.readouterr().out.splitlines()[1]


def test_the_summary_says_what_windows_save_in_15_lines(capsys):
    plan = explain(convolutional(), IMAGE, patch=4, stride=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 15 and lines[0] == "13×13 positions, patch 4×4, stride 2×2"
    assert any(f"speed-up {plan.speedup:.2f}" in line for line in lines)
    assert "largest costs of a position:" in lines and "conv_general_dilated" in "".join(lines)


def test_many_causes_are_not_all_told(capsys):
    def f(images):
        parts = [spectrum(images + n) for n in range(9)]
        return jnp.concatenate(parts, -1).max((1, 2))

    explain(f, IMAGE, patch=4)
    out = capsys.readouterr().out
    assert out.count("no rule for fft") == 3 and "and 6 more such equations" in out
    assert len(out.splitlines()) <= 15


def test_all_equations_are_printed_on_request(capsys):
    plan = explain(convolutional(), IMAGE, patch=4, verbose=True)
    assert capsys.readouterr().out == describe(plan) + "\n"


def test_integers_are_explained_as_the_floats_that_they_become(capsys):
    image = np.zeros(IMAGE.shape, np.uint8)
    assert repr(explain(convolutional(), image, patch=4)) == repr(
        explain(convolutional(), IMAGE, patch=4)
    )


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(image=np.zeros((2, 28, 28, 1)), patch=4), r"`image` must be \(H, W, C\)"),
        (dict(image=IMAGE, patch=29), "`patch` must not exceed the image"),
        (dict(image=IMAGE, patch=4, margin=4), "`margin` must be less than the patch"),
    ],
)
def test_what_occlude_refuses_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        explain(Partial(excited), **options)
