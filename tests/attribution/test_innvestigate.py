"""Gradient methods against attributions that iNNvestigate computed: one layer, then flatten."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import attribution as att

LAYERS = [
    "AveragePooling2D", "Conv2D", "Conv2D_relu", "Dense", "Dense_relu", "MaxPooling2D",
]  # fmt: skip


def network(name, weights):
    """The scorer of a group: the named layer, then flatten."""

    def pool(x, init, join):
        return jax.lax.reduce_window(x, init, join, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def f(x):
        if name == "AveragePooling2D":
            x = pool(x, 0.0, jax.lax.add) / 4
        elif name == "MaxPooling2D":
            x = pool(x, -jnp.inf, jax.lax.max)
        elif name.startswith("Dense"):
            x = x @ weights[0] + weights[1][None, None, None]
        else:
            x = jax.lax.conv_general_dilated(
                x, weights[0], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + weights[1][None, None, None]
        return (jax.nn.relu(x) if name.endswith("relu") else x).reshape(x.shape[0], -1)

    return f


@pytest.fixture
def reference(data_folder):
    """A function that reads a network and what an analyzer made of it."""

    def read(analyzer, name):
        with h5py.File(data_folder / "oracles/innvestigate" / f"{analyzer}.hdf5") as file:
            group = file[name]
            stored = group.get("weights")
            weights = [] if stored is None else [jnp.asarray(stored[k][()]) for k in sorted(stored)]
            images = np.asarray(file["input"], np.float32)
            return network(name, weights), images, group["output"][()], group["attribution"][()]

    return read


@pytest.mark.parametrize("name", LAYERS)
def test_the_networks_are_those_of_the_files(reference, name):
    f, images, output, _ = reference("Gradient", name)
    np.testing.assert_allclose(f(images), output, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("analyzer", "method", "options"),
    [
        ("Gradient", att.saliency, {}),
        ("InputTimesGradient", att.input_x_gradient, {}),
        ("GuidedBackprop", att.guided, {}),
        ("Deconvnet", att.deconvnet, {}),
        ("IntegratedGradients", att.integrated_gradients, {"points": 64, "rule": "mean"}),
    ],
)
def test_attributions_equal_theirs(reference, analyzer, method, options, name):
    f, images, output, expected = reference(analyzer, name)
    found = method(f, images, target=output.argmax(-1), **options)
    values = found.values
    if analyzer in ("GuidedBackprop", "Deconvnet"):  # theirs start from the neuron's value
        values = values * output.max(-1)[:, None, None, None]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(values, expected, rtol=1e-2, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_smoothing_is_near_theirs(reference, name):
    f, images, output, expected = reference("SmoothGrad", name)
    found = att.smooth(f, images, target=output.argmax(-1), samples=64, noise=1.0, scale="absolute")
    # Where all is linear noise changes nothing; elsewhere both are means of 64 draws of their own.
    loose = name.endswith("relu") or name == "MaxPooling2D"
    tolerance = 0.5 if loose else 1e-4
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.values, expected, atol=tolerance * scale)
    if loose:
        assert np.corrcoef(found.values.ravel(), expected.ravel())[0, 1] > 0.9


R = att.rules
EVERYWHERE = ["convolution", "dense"]
SLOWLY = [
    ("LRPZ", R.epsilon(1e-7)),
    ("LRPFlat", R.flat(size=1e-7)),
    ("LRPWSquare", R.w_square(size=1e-7)),
    ("LRPAlpha1Beta0", R.alpha_beta(1, 0)),
    ("LRPZPlus", R.z_plus()),
    ("LRPSequentialPresetA", {"convolution": R.alpha_beta(1, 0), "dense": R.epsilon(0.1)}),
    ("LRPSequentialPresetB", {"convolution": R.alpha_beta(2, 1), "dense": R.epsilon(0.1)}),
    ("LRPZ_boxed_input_layer_rule", dict.fromkeys(EVERYWHERE, R.z_box(-10, 10))),
    ("DeepTaylor", {**dict.fromkeys(EVERYWHERE, R.z_plus()), "pool": R.flat()}),
]
RULES = [
    ("LRPEpsilon", R.epsilon(1e-7)),
    ("LRPAlpha2Beta1", R.alpha_beta(2, 1)),
    ("BoundedDeepTaylor", {**dict.fromkeys(EVERYWHERE, R.z_box(-128, 128)), "pool": R.flat()}),
    *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOWLY),
]


@pytest.mark.slow
@pytest.mark.parametrize(("analyzer", "rules"), RULES)
def test_relevance_equals_theirs(reference, analyzer, rules):
    """Theirs starts from the neuron's value, too; pooling shares equally in Deep Taylor alone."""
    for name in LAYERS:
        f, images, output, expected = reference(analyzer, name)
        found = att.lrp(f, images, target=output.argmax(-1), rules=rules)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found.values, expected, rtol=1e-2, atol=1e-5 * scale)
