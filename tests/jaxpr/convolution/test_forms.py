"""Every form of a convolution gives the sums of products that its definition asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxviz.jaxpr.convolution import forms, model, winograd
from jaxviz.jaxpr.convolution.blocks import blocks_of_pixels, blocks_of_taps
from jaxviz.jaxpr.convolution.higher import convolve_higher
from jaxviz.jaxpr.convolution.shapes import Sizes
from jaxviz.jaxpr.convolution.views import depthwise, grouped_products, products

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def slow_convolution(x, w, padding, strides=(1, 1), dilation=(1, 1), groups=1):
    """y[n, i, j, f] = sum over a, b, c of x[n, i*s + a*d, j*s + b*d, c] * w[a, b, c, f]."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    w = np.asarray(w, np.float64)
    reach = [(k - 1) * d for k, d in zip(w.shape[:2], dilation, strict=True)]
    rows, columns = (
        (n - r - 1) // s + 1 for n, r, s in zip(x.shape[1:3], reach, strides, strict=True)
    )
    out = np.zeros((len(x), rows, columns, w.shape[3]))
    own, part = w.shape[2], w.shape[3] // groups
    for f in range(w.shape[3]):
        first = f // part * own
        for i, j in np.ndindex(rows, columns):
            top, left = i * strides[0], j * strides[1]
            seen = x[:, top : top + reach[0] + 1 : dilation[0], left : left + reach[1] + 1]
            seen = seen[:, :, :: dilation[1], first : first + own]
            out[:, i, j, f] = (seen * w[..., f]).sum((1, 2, 3))
    return out


def whole_numbers(seed, *shape):
    values = np.random.default_rng(seed).integers(-4, 5, shape)
    return jnp.asarray(values, jnp.float32)


def parameters(x, w, padding, strides=(1, 1), dilation=(1, 1), groups=1, precision=None):
    """The parameters of the convolution, as JAX traces it."""

    def convolve(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            strides,
            padding,
            rhs_dilation=dilation,
            feature_group_count=groups,
            dimension_numbers=DIMENSIONS,
            precision=precision,
        )

    return jax.make_jaxpr(convolve)(x, w).eqns[-1].params


sides = st.tuples(st.integers(3, 9), st.integers(3, 9))
paddings = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)


@pytest.mark.slow
@settings(max_examples=6)
@given(seed=st.integers(0, 99), size=sides, padding=paddings)
@pytest.mark.parametrize("axes", ["width", "both"])
def test_tiles_of_two_are_exact_on_whole_numbers(axes, seed, size, padding):
    x, w = whole_numbers(seed, 2, *size, 3), whole_numbers(seed + 1, 3, 3, 3, 2)
    params = parameters(x, w, padding)
    taps = getattr(winograd, f"along_{axes}_taps")(winograd.TWO, w)
    found = getattr(winograd, f"along_{axes}")(winograd.TWO, params, x, taps)
    np.testing.assert_array_equal(found, slow_convolution(x, w, padding))


@pytest.mark.slow
@settings(max_examples=3)
@given(seed=st.integers(0, 99), size=sides, padding=paddings)
@pytest.mark.parametrize("axes", ["width", "both"])
def test_tiles_of_four_are_right_but_for_rounding(axes, seed, size, padding):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.standard_normal((1, *size, 3)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 3, 2)), jnp.float32)
    taps = getattr(winograd, f"along_{axes}_taps")(winograd.FOUR, w)
    found = getattr(winograd, f"along_{axes}")(winograd.FOUR, parameters(x, w, padding), x, taps)
    wanted = slow_convolution(x, w, padding)
    assert np.abs(found - wanted).max() < 2e-5 * np.abs(wanted).max()


@pytest.mark.slow
@settings(max_examples=6)
@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=paddings,
    groups=st.integers(1, 3),
)
def test_views_are_exact_on_whole_numbers(seed, size, kernel, strides, dilation, padding, groups):
    x = whole_numbers(seed, 2, *size, 2 * groups)
    w = whole_numbers(seed + 1, *kernel, 2, 3 * groups)
    params = parameters(x, w, padding, strides, dilation, groups)
    form = products if groups == 1 else grouped_products
    wanted = slow_convolution(x, w, padding, strides, dilation, groups)
    np.testing.assert_array_equal(form(params, x, w), wanted)
    np.testing.assert_array_equal(Sizes.of(params, x, w).result, wanted.shape[1:3])
    alone = w[:, :, :1]
    params = parameters(x, jnp.tile(alone, 2), padding, strides, dilation, 2 * groups)
    wanted = slow_convolution(x, jnp.tile(alone, 2), padding, strides, dilation, 2 * groups)
    np.testing.assert_array_equal(depthwise(params, x, jnp.tile(alone, 2)), wanted)


@pytest.mark.slow
@settings(max_examples=5)
@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=paddings,
)
def test_blocks_are_exact_on_whole_numbers(seed, size, kernel, strides, padding):
    x, w = whole_numbers(seed, 2, *size, 3), whole_numbers(seed + 1, *kernel, 3, 2)
    params = parameters(x, w, padding, strides)
    blocks = blocks_of_pixels(params, x, kernel)
    found = convolve_higher(((0, 0), (0, 0)), params, blocks, blocks_of_taps(strides, w))
    np.testing.assert_array_equal(found, slow_convolution(x, w, padding, strides))


def name_of(x, w, padding=((1, 1), (1, 1)), error=0.0, dtype=jnp.float32, **options):
    x, w = jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(w, dtype)
    form = forms.choose(parameters(x, w, padding, **options), x, w, error)
    return form and form.name


@pytest.mark.parametrize(
    ("shape", "kernel", "options", "older", "newer"),
    [
        ((8, 14, 14, 512), (3, 3, 512, 512), {}, "tiles of 2×2", "tiles of 2×2"),
        ((8, 224, 224, 64), (3, 3, 64, 64), {}, "tiles of 2 along the width", None),
        ((8, 14, 14, 512), (3, 3, 512, 512), dict(error=1e-4), "tiles of 4×4", "tiles of 4×4"),
        ((8, 56, 56, 128), (3, 3, 128, 256), dict(error=4e-6), *["tiles of 4 along the width"] * 2),
        ((8, 14, 14, 256), (1, 1, 256, 64), dict(padding="VALID"), "products", "products"),
        ((8, 28, 28, 128), (3, 3, 128, 128), dict(dilation=(2, 2)), "higher", None),
        ((8, 28, 28, 256), (3, 3, 256, 256), dict(precision="highest"), "higher", "higher"),
        ((8, 28, 28, 8), (3, 3, 1, 8), dict(groups=8), "depthwise", "depthwise"),
        ((8, 224, 224, 3), (7, 7, 3, 64), dict(strides=(2, 2)), None, None),
        ((8, 14, 14, 512), (3, 3, 512, 512), dict(dtype=jnp.bfloat16), None, None),
        ((8, 14, 14, 512), (3, 3, 512, 512), dict(padding=((-1, 1), (1, 1))), None, None),
        ((0, 14, 14, 512), (3, 3, 512, 512), {}, None, None),
        ((8, 14, 14, 32), (3, 3, 32, 32), {}, "higher", None),
    ],
)
def test_a_form_is_chosen_by_shape(monkeypatch, shape, kernel, options, older, newer):
    """By the rates of both convolutions that XLA has had: the newer is faster as it stands."""
    for rates, name in ((model.OLDER, older), (model.NEWER, newer)):
        monkeypatch.setattr(model, "RATES", rates)
        assert name_of(shape, kernel, **options) == name


@pytest.mark.slow
def test_candidates_are_all_right_and_hold_what_is_chosen():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-3, 4, (1, 9, 8, 8)), jnp.float32)
    for w, groups in (((3, 3, 8, 4), 1), ((1, 1, 8, 4), 1), ((3, 3, 1, 8), 8), ((3, 3, 4, 4), 2)):
        w = jnp.asarray(rng.integers(-3, 4, w), jnp.float32)
        params = parameters(x, w, ((1, 1), (1, 1)), groups=groups)
        found = forms.candidates(params, x, w)
        assert found[0].name == "as it stands" and len(found) > 1
        wanted = slow_convolution(x, w, ((1, 1), (1, 1)), groups=groups)
        for form in found:
            np.testing.assert_array_equal(form.apply(x, form.prepare(w)), wanted, form.name)
        chosen = forms.choose(params, x, w)
        assert chosen is None or chosen.name in [form.name for form in found]


def test_double_precision_takes_no_tiles():
    with jax.enable_x64():
        name = name_of((8, 14, 14, 512), (3, 3, 512, 512), dtype=jnp.float64)
        assert name in ("higher", "products", None)


@pytest.mark.slow
def test_the_batch_does_not_change_the_form():
    names = {name_of((n, 16, 16, 128), (3, 3, 128, 128)) for n in (1, 2, 16, 1000)}
    assert names == {"tiles of 2×2"}


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.0, 1e-4])
def test_what_is_chosen_is_right_and_composes(error, monkeypatch):
    monkeypatch.setattr(forms, "LEAST_SAVED_BY_TILES", -1.0)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((3, 7, 6, 8)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 8, 8)), jnp.float32)
    params = parameters(x, w, ((1, 1), (1, 1)))
    form = forms.choose(params, x, w, error)
    assert form is not None and form.name.startswith("tiles")

    def tiled(x, w):
        return form.apply(x, form.prepare(w))

    def usual(x, w):
        return lax.conv_general_dilated_p.bind(x, w, **params)

    wanted = slow_convolution(x, w, ((1, 1), (1, 1)))
    near = dict(rtol=0, atol=2e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(jax.jit(tiled)(x, w), wanted, **near)
    one_by_one = jax.vmap(lambda x: tiled(x[None], w)[0])(x)
    np.testing.assert_allclose(one_by_one, wanted, **near)
    y, pull = jax.vjp(tiled, x, w)
    for mine, theirs in zip(pull(y), jax.vjp(usual, x, w)[1](y), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.slow
def test_a_pixel_that_is_not_finite_reaches_no_further_than_its_tiles():
    x = whole_numbers(0, 1, 8, 8, 2).at[0, 3, 3, 0].set(np.inf)
    w = whole_numbers(1, 3, 3, 2, 2)
    params = parameters(x, w, ((1, 1), (1, 1)))
    found = winograd.along_both(winograd.TWO, params, x, winograd.along_both_taps(winograd.TWO, w))
    wanted = np.asarray(lax.conv_general_dilated_p.bind(x, w, **params))
    # Sites 2 ... 4 read pixel 3; their tiles of two hold sites 2 ... 5.
    reached = np.zeros((8, 8), bool)
    reached[2:6, 2:6] = True
    assert not np.isfinite(found)[0, 2:5, 2:5].all()
    np.testing.assert_array_equal(np.asarray(found)[0, ~reached], wanted[0, ~reached])
