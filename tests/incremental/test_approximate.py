"""Approximate updates: cheaper, and no further from exact than they say."""

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx

from jaxviz.incremental import base, calibrate, make_plan, update
from jaxviz.incremental.approximate import FIELDS

SHAPE, PATCH = (40, 44, 3), (6, 6)


@pytest.fixture
def model():
    layers = [networks.conv(3, 6, rngs=nnx.Rngs(0))]
    layers += [networks.conv(6, 6, rngs=nnx.Rngs(i)) for i in range(1, 7)]
    return networks.Chain(*layers, lambda x: x.sum((1, 2)))


@pytest.fixture
def image(rng):
    return jnp.asarray(rng.standard_normal(SHAPE), jnp.float32)


@pytest.fixture
def starts():
    return jnp.asarray([(row, column) for row in (-4, 8, 36) for column in (0, 20, 40)])


@pytest.fixture
def patches(starts):
    return jnp.full((len(starts), *PATCH, 3), 0.5)


def scores(plan, model, image, patches, starts):
    clean = base(plan, model, image)
    return jax.jit(jax.vmap(lambda p, s: update(plan, clean, p, s)))(patches, starts)


@pytest.mark.slow
def test_a_smaller_field_costs_less_and_errs_more(model, image, patches, starts):
    exact = scores(make_plan(model, image, PATCH), model, image, patches, starts)
    flops, errors = [], []
    for field in (0, 4, 8, 14):
        plan = make_plan(model, image, PATCH, field=field)
        flops.append(plan.flops_window)
        errors.append(np.abs(scores(plan, model, image, patches, starts) - exact).max())
    assert flops == sorted(flops) and flops[0] < 0.5 * flops[-1]
    assert errors[0] > errors[1] > errors[2] > 1e-4
    assert errors[3] <= 1e-4
    assert not make_plan(model, image, PATCH, field=4).body.exact
    assert make_plan(model, image, PATCH).body.exact


@pytest.mark.slow
def test_calibration_keeps_its_tolerance_and_reports_its_error(model, image, patches, starts):
    exact = scores(make_plan(model, image, PATCH), model, image, patches, starts)
    span = float(np.abs(exact - model(image[None])).max())
    previous = -1
    for tolerance in (0.5 * span, 0.05 * span, 0.005 * span):
        found = calibrate(model, image, patches, starts, tolerance=tolerance)
        got = scores(
            make_plan(model, image, PATCH, field=found.field), model, image, patches, starts
        )
        error = np.abs(np.float64(got) - np.float64(exact)).max()
        assert found.checked == len(starts)
        assert found.checked_error == pytest.approx(error, abs=1e-4)
        assert found.checked_error <= tolerance
        assert found.field in FIELDS and found.field >= previous
        previous = found.field


@pytest.mark.slow
def test_what_no_field_attains_stays_exact(image, patches, starts):
    def f(images):
        return jnp.where(images == 0.5, jnp.nan, 1.0).sum((1, 2))

    assert calibrate(f, image, patches, starts, tolerance=1.0).field is None


def test_bad_calibrations_are_refused(model, image, patches, starts):
    with pytest.raises(ValueError, match="`tolerance` must be at least 0: got -1"):
        calibrate(model, image, patches, starts, tolerance=-1)
    with pytest.raises(ValueError, match="`patches` must hold one patch for each of at least one"):
        calibrate(model, image, patches[:2], starts, tolerance=1.0)


@pytest.mark.parametrize("field", [4, 7, 10])
def test_flattening_errs_no_more_than_the_layers_before_it(
    model, image, patches, starts, field, rng
):
    weights = jnp.asarray(rng.standard_normal((10, 11, 6, 3)), jnp.float32)

    def pooled(x):
        maps = networks.Chain(*model.layers[:-1])(x)
        return jax.lax.reduce_window(maps, -jnp.inf, jax.lax.max, *[(1, 4, 4, 1)] * 2, "VALID")

    def flattened(x):
        maps = pooled(x)
        return maps.reshape(len(maps), -1) @ weights.reshape(-1, 3)

    def together(x):
        return jnp.einsum("nijc,ijck->nk", pooled(x), weights)

    found = [
        scores(make_plan(f, image, PATCH, field=field), f, image, patches, starts)
        for f in (flattened, together)
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4 * float(jnp.abs(found[1]).max()))


def test_every_cell_more_is_a_wider_window(model, image):
    windows = [
        [
            step.window[1]
            for step in make_plan(model, image, PATCH, field=field).body.steps
            if step.equation.primitive.name == "conv_general_dilated"
        ]
        for field in range(15)
    ]
    for field, sizes in enumerate(windows):
        assert sizes == [PATCH[0] + min(field, 2 * depth) for depth in range(1, 8)]


def test_every_cell_more_is_a_wider_window_behind_a_pool(model, image):
    def f(x):
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, *[(1, 2, 2, 1)] * 2, "VALID")
        return model(x)

    windows = [
        make_plan(f, image, PATCH, step=(2, 2), field=field).body.steps[-3].window[1]
        for field in range(12)
    ]
    assert windows == [3 + field for field in range(12)]


def test_windows_that_are_cut_short_take_larger_tiles():
    layers = [networks.conv(256, 256, rngs=nnx.Rngs(i)) for i in range(2)]
    deep = networks.Chain(*layers, lambda x: x.sum((1, 2)))
    image = jax.ShapeDtypeStruct((56, 56, 256), jnp.float32)

    def tiles(field):
        steps = make_plan(deep, image, (16, 16), field=field).body.steps
        return {step.form.name for step in steps if step.form is not None}

    assert tiles(None) == {"tiles of 2×2"}
    assert tiles(4) == {"tiles of 4×4"}
