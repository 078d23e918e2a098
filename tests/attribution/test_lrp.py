"""Layer-wise relevance propagation against its formulas in NumPy, written as sums over weights."""

from functools import partial

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from small_network import SHAPE, scorer, unbiased

import jaxviz as jv
from jaxviz import attribution as att
from jaxviz.attribution import rules

EPSILON = 1e-6


def explained(f, images, **options):
    """Values, delta and clean scores."""
    found = att.lrp(f, images, **options)
    return found.values, found.delta, found.base


# A slow restatement: every linear operation is a matrix with a bias, and shares number by number.


def stabilized(z, size=EPSILON):
    return z + np.where(z >= 0, size, -size)


def slow_share(rule, x, w, b, r):
    """Relevance of inputs x (I,), weights (I, O), bias (O,), for that of the outputs, r (O,)."""
    name, *options = rule
    given = np.zeros(len(x))
    for o in range(len(r)):
        parts, bias = x * w[:, o], b[o]
        z = parts.sum() + bias
        if name == "epsilon":
            given += parts * r[o] / stabilized(z, *options)
        elif name == "gamma":
            favoured = np.maximum if z >= 0 else np.minimum
            more = parts + options[0] * favoured(parts, 0)
            total = more.sum() + bias + options[0] * favoured(bias, 0)
            given += more * r[o] / stabilized(total)
        elif name == "alpha_beta":
            for factor, pick in zip(options, (np.maximum, np.minimum), strict=True):
                some = pick(parts, 0)
                sign = 1 if pick is np.maximum else -1
                given += sign * factor * some * r[o] / stabilized(some.sum() + pick(bias, 0))
        elif name == "flat":
            read = (READ[id(w)])[:, o]
            given += read * r[o] / stabilized(read.sum())
        elif name == "w_square":
            given += w[:, o] ** 2 * r[o] / stabilized((w[:, o] ** 2).sum())
        else:
            low, high = options
            some = parts - low * np.maximum(w[:, o], 0) - high * np.minimum(w[:, o], 0)
            given += some * r[o] / stabilized(some.sum())
    return given


READ = {}


def slow_convolution(kernel, scale, shape):
    """A 3×3 convolution with zeros around, as a matrix (I, O)."""
    height, width = shape
    _, _, channels, features = kernel.shape
    w = np.zeros((height, width, channels, height, width, features))
    read = np.zeros_like(w)
    for row, col, dy, dx in np.ndindex(height, width, 3, 3):
        y, x = row + dy - 1, col + dx - 1
        if 0 <= y < height and 0 <= x < width:
            w[y, x, :, row, col] = kernel[dy, dx] * scale
            read[y, x, :, row, col] = 1
    w, read = (a.reshape(height * width * channels, -1) for a in (w, read))
    READ[id(w)] = read
    return w


SIZE = (4, 3)
RNG = np.random.default_rng(1)
FIRST, SECOND = RNG.normal(size=(3, 3, 2, 3)), RNG.normal(size=(3, 3, 3, 3)) * 0.5
SCALE, SHIFT = np.array([1.3, -0.7, 0.4]), np.array([0.2, -0.1, 0.3])  # batch normalisation
DENSE, LAST = RNG.normal(size=(36, 4)), RNG.normal(size=4) * 0.2


def residual(x):
    """Convolution, batch norm, ReLU; the same convolution twice, each skipped; a dense layer."""

    def conv(x, kernel):
        kernel = jnp.asarray(kernel, x.dtype)
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)

    def wide(array):
        return jnp.asarray(array, x.dtype)[None, None, None]

    h = jv.tag("one", jnp.maximum(conv(x, FIRST) * wide(SCALE) + wide(SHIFT), 0))
    for _ in range(2):
        h = jax.nn.relu(h + conv(h, SECOND))
    h = jv.tag("block", h)
    h = h.reshape(len(x), -1) @ jnp.asarray(DENSE, x.dtype)
    return jv.tag("dense", h + jnp.asarray(LAST, x.dtype)[None])


def slow_residual(image, target, first, later, dense):
    x = image.astype(np.float64).reshape(-1)
    one = slow_convolution(FIRST, SCALE, SIZE)
    two = slow_convolution(SECOND, 1.0, SIZE)
    shift, zero = np.tile(SHIFT, 12), np.zeros(36)
    h = [np.maximum(x @ one + shift, 0)]
    convolved = []
    for _ in range(2):
        convolved.append(h[-1] @ two)
        h.append(np.maximum(h[-1] + convolved[-1], 0))
    scores = h[-1] @ DENSE + LAST
    READ[id(DENSE)] = np.ones_like(DENSE)
    r = slow_share(dense, h[-1], DENSE, LAST, np.where(np.arange(4) == target, scores, 0))
    for number in (1, 0):
        z = stabilized(h[number] + convolved[number])
        skipped, inside = h[number] * r / z, convolved[number] * r / z
        r = skipped + slow_share(later, h[number], two, zero, inside)
    return slow_share(first, x, one, shift, r).reshape(image.shape), scores


RULES = {
    ("epsilon", EPSILON): rules.epsilon(),
    ("epsilon", 0.5): rules.epsilon(0.5),
    ("gamma", 0.25): rules.gamma(),
    ("alpha_beta", 2.0, 1.0): rules.alpha_beta(2, 1),
    ("alpha_beta", 1.0, 0.0): rules.z_plus(),
    ("flat",): rules.flat(),
    ("w_square",): rules.w_square(),
    ("z_box", -3.0, 4.0): rules.z_box(-3.0, 4.0),
}


@pytest.fixture
def images(rng):
    return rng.normal(size=(3, *SIZE, 2)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "_".join(map(str, rule)))
def test_a_rule_is_its_formula(images, rule):
    """With a bias, negative scales of a batch normalisation, and inputs of both signs."""
    given = {"first": RULES[rule]}
    values, _, base = explained(residual, images, target=2, rules=given)
    plain = ("epsilon", EPSILON)
    for image, found, scores in zip(images, values, base, strict=True):
        expected, known = slow_residual(image, 2, rule, plain, plain)
        np.testing.assert_allclose(scores, known, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_rules_are_chosen_by_kind_number_and_layer(images):
    gamma, plus, small = ("gamma", 0.25), ("alpha_beta", 1.0, 0.0), ("epsilon", 0.5)
    choices = [
        {"first": RULES[gamma], "convolution": RULES[plus], "dense": RULES[small]},
        {0: RULES[gamma], 1: RULES[plus], 2: RULES[plus], -1: RULES[small]},
        {"one": RULES[gamma], "block": RULES[plus], "last": RULES[small], "dense": RULES[small]},
        {"convolution": RULES[plus], "one": RULES[gamma], "last": RULES[small]},
    ]
    found = [explained(residual, images, target=0, rules=choice)[0] for choice in choices]
    # The layer "dense" is called as the kind is; "block" holds the addition too, which is no
    # matter: between rectified numbers and others z⁺ and ε differ, so it is left out here.
    expected = np.stack([slow_residual(image, 0, gamma, plus, small)[0] for image in images])
    scale = np.abs(expected).max()
    for which in (0, 1, 3):
        np.testing.assert_allclose(found[which], expected, atol=1e-4 * scale)
    assert np.abs(found[2] - expected).max() > 1e-3 * scale


@pytest.mark.slow
def test_epsilon_is_input_times_gradient_where_nothing_has_a_bias(rng):
    """And so does not depend on how such a network is written."""
    images = rng.normal(size=(2, *SHAPE)).astype(np.float32)

    def otherwise(x):  # relu(x) = (x + |x|) / 2, of one array; and the scores from two halves
        x = x * 2
        return unbiased(x * 0.25) + unbiased(x / 4)

    expected = att.input_x_gradient(unbiased, images, target=1).values
    for f in (unbiased, otherwise):
        values, delta, _ = explained(f, images, target=1)
        np.testing.assert_allclose(values, expected, atol=1e-4)
        np.testing.assert_allclose(delta, 0, atol=1e-4)


NETWORKS = {
    "resnet": (partial(networks.resnet, depths=(1, 1)), dict(bottleneck=False, width=4, classes=5),
               (16, 12, 3)),
    "mobilenet": (
        networks.mobilenet_v2,
        dict(rows=((1, 8, 1, 1), (2, 8, 2, 2)), last=8, classes=5),
        (12, 12, 3),
    ),
    "squeeze and excitation": (
        networks.efficientnet_b0,
        dict(rows=((1, 8, 1, 1, 3), (2, 8, 2, 2, 3)), last=8, classes=5),
        (12, 12, 3),
    ),
    "densenet": (
        networks.densenet121, dict(depths=(2, 2), growth=4, stem=8, classes=5), (16, 16, 3)
    ),
    "convnext": (networks.convnext, dict(depths=(1, 1), widths=(8, 8), classes=5), (16, 16, 3)),
}  # fmt: skip


SLOW = [pytest.param(name, "signal", marks=pytest.mark.slow) for name in NETWORKS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gating"),
    [
        ("squeeze and excitation", "signal"),
        ("squeeze and excitation", "half"),
        *SLOW[:2],
        *SLOW[3:],
    ],
)
def test_relevance_is_conserved_with_what_biases_take(rng, name, gating):
    make, options, shape = NETWORKS[name]
    f = make(nnx.Rngs(0), **options)
    images = rng.normal(size=(2, *shape)).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"):  # as Flax's average pooling needs it
        values, delta, base = explained(f, images, rules=rules.epsilon(1e-7), gating=gating)
    whole = np.abs(values).sum((1, 2, 3))
    assert np.all(np.abs(delta) < 1e-3 * np.maximum(whole, np.abs(base).max(-1)))
    assert np.all(whole > 0)


@pytest.mark.slow
def test_other_rules_conserve_relevance_too(rng):
    images = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    for rule in (rules.gamma(), rules.flat(), rules.w_square(), rules.z_box(-3, 4)):
        given = {"convolution": rule, "first": rule, "dense": rules.epsilon()}
        _, delta, base = explained(scorer, images, rules=given)
        np.testing.assert_allclose(delta, 0, atol=2e-3 * np.abs(base).max())


@pytest.mark.slow
def test_the_target_s_score_is_what_is_shared(images):
    f = residual
    weights = np.array([0.5, 0.0, -1.0, 0.0], np.float32)
    values, delta, base = explained(f, images, target=weights)
    one, two = (explained(f, images, target=t)[0] for t in (0, 2))
    np.testing.assert_allclose(values, 0.5 * one - two, atol=1e-3)
    by_function, *_ = explained(f, images, target=lambda s: 0.5 * s[:, 0] - s[:, 2])
    np.testing.assert_allclose(by_function, values, atol=1e-4)


@pytest.mark.slow
def test_a_batch_equals_one_by_one_and_compiles_once(images, compilations):
    together = att.lrp(residual, images, batch_size=2)
    compilations.start()
    again = att.lrp(residual, images[::-1], batch_size=2)
    assert compilations.count == 0
    np.testing.assert_allclose(again.values[::-1], together.values, atol=1e-4)
    for image, values in zip(images, together.values, strict=True):
        np.testing.assert_allclose(att.lrp(residual, image).values, values, atol=1e-4)
    assert together.delta.shape == (3,) and together.method == "LRP"
    assert dict(together.config)["rules"] == "Epsilon(size=1e-06)"


@pytest.mark.slow
def test_bounds_of_pixels_are_arguments(images, compilations):
    """Of z_box: one per channel, others another time; of a model, which is traced once."""
    conv = nnx.Conv(2, 1, (1, 1), use_bias=False, rngs=nnx.Rngs(0))
    model = networks.Chain(conv, networks.global_mean)
    low = np.array([-3.0, -4.0], np.float32)
    att.lrp(model, images, rules=rules.z_box(low - 1, 9.0))
    compilations.start()
    found = att.lrp(model, images, rules=rules.z_box(low, 9.0))
    assert compilations.count == 0
    w = np.asarray(conv.kernel[0, 0, :, 0], np.float64)
    for image, values in zip(images, found.values, strict=True):
        share = image * w - low * np.maximum(w, 0) - 9 * np.minimum(w, 0)
        r = (image @ w)[..., None] / image[..., 0].size
        expected = share / share.sum(-1, keepdims=True) * r
        np.testing.assert_allclose(values, expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"what the operation reads, of shape \(4, 3, 2\): got"):
        att.lrp(model, images, rules=rules.z_box(np.zeros(3), 9.0))


@pytest.mark.slow
def test_it_composes(images):
    image = jnp.asarray(images[0])
    clean = att.lrp(unbiased_dense, image, target=0)
    slope = jax.grad(lambda x: att.lrp(unbiased_dense, x, target=0).values.sum())(image)
    np.testing.assert_allclose(slope * image, clean.values, rtol=1e-3, atol=1e-4)
    inside = jax.jit(lambda x: att.lrp(unbiased_dense, x, target=0).values)(image)
    np.testing.assert_allclose(inside, clean.values, atol=1e-5)


def unbiased_dense(x):
    return jnp.maximum(x.reshape(len(x), -1) @ jnp.asarray(DENSE[:24], x.dtype), 0)


@pytest.mark.slow
def test_half_precision(images):
    found = att.lrp(unbiased_dense, images, dtype="bfloat16")
    exact = att.lrp(unbiased_dense, images)
    assert found.values.dtype == np.float32
    scale = np.abs(exact.values).max()
    np.testing.assert_allclose(found.values, exact.values, atol=0.03 * scale)


def test_scores_that_do_not_move_have_no_relevance(images):
    constant = lambda x: jnp.full((len(x), 2), 3.0)  # noqa: E731
    values, delta, _ = explained(constant, images)
    assert not values.any() and np.all(delta == -3)
    dead = lambda x: jax.nn.relu(x.sum((1, 2)) - 1e3)  # noqa: E731
    values, delta, _ = explained(dead, images)
    assert not values.any() and not delta.any()


@pytest.mark.slow
def test_functions_of_one_number_pass_relevance_on(images):
    functions = [
        jax.nn.relu6, jax.nn.silu, jax.nn.gelu, jnp.tanh, jax.nn.elu, jax.nn.hard_swish,
        jax.nn.leaky_relu, lambda x: x * jnp.tanh(jax.nn.softplus(x)), jnp.abs, jnp.square,
    ]  # fmt: skip
    for function in functions:
        f = lambda x, function=function: function(x * 3 + 1).sum((1, 2))  # noqa: E731
        values, _, base = explained(f, images[:1], target=0)
        z, a = images[0, ..., 0] * 3 + 1, np.asarray(function(images[:1, ..., 0] * 3 + 1))[0]
        r = a * base[0, 0] / stabilized(a.sum())
        expected = images[0, ..., 0] * 3 * r / stabilized(z)
        np.testing.assert_allclose(values[0, ..., 0], expected, rtol=2e-3, atol=1e-3)
        assert not values[..., 1].any()


def split_and_joined(x):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a[:, ::-1], b, jnp.maximum(a, b)], -1)


def unstacked_and_stacked(x):
    a, b = jnp.moveaxis(x, -1, 0)
    return jnp.stack([a[:, ::-1], b, jnp.maximum(a, b)], -1)


@pytest.mark.parametrize("parts", [split_and_joined, unstacked_and_stacked])
def test_what_moves_numbers_moves_relevance(images, parts):
    def f(x):
        both = parts(jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)))).transpose(0, 3, 1, 2)
        return jnp.where(both > 0, both, 0).reshape(len(x), -1).sum(-1, keepdims=True)

    values, delta, _ = explained(f, images)
    larger = np.maximum(images[..., 0], images[..., 1])
    for channel in (0, 1):
        x = images[..., channel]
        expected = np.maximum(x, 0) + np.where(x == larger, np.maximum(x, 0), 0)
        np.testing.assert_allclose(values[..., channel], expected, atol=1e-4)
    np.testing.assert_allclose(delta, 0, atol=1e-4)


def test_gates(images):
    def gated(x):
        gate = jax.nn.sigmoid(x.mean((1, 2), keepdims=True))
        return (x * gate).sum((1, 2))

    x = images[0, ..., 0].astype(np.float64)
    gate = 1 / (1 + np.exp(-x.mean()))
    share = x * gate
    signal, _, _ = explained(gated, images[:1], target=0)
    np.testing.assert_allclose(signal[0, ..., 0], share, atol=1e-4)
    half, _, _ = explained(gated, images[:1], target=0, gating="half")
    expected = share / 2 + x / x.sum() * share.sum() / 2
    np.testing.assert_allclose(half[0, ..., 0], expected, atol=1e-4)


def attention(x):
    tokens = jv.tag("tokens", x.reshape(len(x), -1, x.shape[-1]))
    mixed = jnp.einsum("nic,njc->nij", tokens, tokens)
    return jv.tag("mixed", mixed).sum(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("f", "told"),
    [
        (lambda x: jax.nn.softmax(residual(x)), r"no softmax: got one; jaxviz.logits"),
        (lambda x: jax.nn.log_softmax(residual(x)), "no softmax"),
        (lambda x: jv.tag("p", jax.nn.softmax(residual(x))), "no softmax: got one in layer 'p'"),
        (lambda x: jax.nn.sigmoid(residual(x)), "before their last sigmoid"),
        (attention, "a dot_general of two arrays that both depend on the image in layer 'mixed'"),
        (lambda x: jv.tag("odd", jnp.cumprod(x, 1)).sum((1, 2)), "got cumprod in layer 'odd'"),
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y * 2, x).sum((1, 2)), "got scan; try"),
    ],
    ids=["softmax", "log-softmax", "named", "sigmoid", "attention", "cumprod", "loop"],
)  # fmt: skip
def test_what_has_no_rule_is_refused_by_name(images, f, told):
    with pytest.raises(ValueError, match=told):
        explained(f, images)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"rules": {"bloc": rules.flat()}}, ValueError, "did you mean 'block'"),
        ({"rules": {7: rules.flat()}}, ValueError, "one of 4 operations with weights: got 7"),
        ({"rules": {"first": "flat"}}, TypeError, r"made by jaxviz.attribution.rules.*'first'"),
        ({"rules": "epsilon"}, TypeError, "made by jaxviz.attribution.rules"),
        ({"gating": "all"}, ValueError, '`gating` must be "signal" or "half"'),
        ({"target": 9}, ValueError, "class from 0 to 3"),
    ],
)
def test_bad_arguments(images, options, error, told):
    with pytest.raises(error, match=told):
        att.lrp(residual, images, **options)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: rules.epsilon(0), "`size` must be above 0"),
        (lambda: rules.gamma(-1), "`factor` must be at least 0"),
        (lambda: rules.alpha_beta(1, 1), "must be 1"),
        (lambda: rules.z_box(1, [0, 2]), "`low` must be below `high`"),
    ],
)
def test_bad_rules(make, told):
    with pytest.raises(ValueError, match=told):
        make()
