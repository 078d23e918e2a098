"""Layer cases that Keras 2 computed: input, weights and output, one layer or a small graph each."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxviz.keras import KerasFileError, KerasModel, load_keras
from jaxviz.keras.build import Overrides
from jaxviz.keras.files.archive import archive_from_config
from jaxviz.keras.load import from_arrays

FOLDER = os.environ.get("JAXVIZ_DATA")
FILE = Path(FOLDER) / "oracles/keras_js_layer_cases.json" if FOLDER else None
CASES = json.loads(FILE.read_text()) if FILE is not None and FILE.exists() else []
REFUSED = ("GRU", "LSTM", "SimpleRNN", "Bidirectional")

ACTIVATIONS = [
    "linear", "tanh", "relu", "sigmoid", "hard_sigmoid", "softplus", "softsign", "softmax", "elu",
    "selu",
]  # fmt: skip

# What the file's `params` leave out; activations of dense layers are left to be found.
UNSTATED = {
    "advanced_activations.LeakyReLU.0": {"alpha": 0.4},
    "advanced_activations.ELU.0": {"alpha": 1.1},
    "advanced_activations.ThresholdedReLU.0": {"theta": 0.9},
    "core.RepeatVector.0": {"n": 7},
    "core.Dropout.0": {"rate": 0.5},
    "noise.GaussianDropout.0": {"rate": 0.5},
    "noise.GaussianNoise.0": {"stddev": 0.5},
    "activations.elu.3": {"alpha": 0.5},
    "activations.relu.3": {"max_value": 0.5},
    "activations.relu.4": {"negative_slope": 0.3},
    "merge.Dot.0": {"axes": 1},
    "merge.Dot.1": {"axes": 2},
    "merge.Dot.2": {"axes": 1, "normalize": True},
    "merge.Dot.3": {"axes": 2, "normalize": True},
    "merge.Dot.4": {"axes": [-1, -1], "normalize": True},
    "merge.Concatenate.2": {"axis": 1},
    "merge.Concatenate.3": {"axis": -2},
}
LAYERS_OF = {"activations.elu.3": "ELU", "activations.relu.3": "ReLU", "activations.relu.4": "ReLU"}


def array(stored: dict) -> np.ndarray:
    return np.asarray(stored["data"], np.float32).reshape(stored["shape"])


def entry(kind: str, name: str, inbound: list[str], config: dict) -> dict:
    nodes = [[[source, 0, 0, {}] for source in inbound]]
    return {"class_name": kind, "name": name, "config": {**config, "name": name},
            "inbound_nodes": nodes}  # fmt: skip


class Case:
    """A case as a model and its inputs."""

    def __init__(self, case: dict):
        self.case, self.kind = case, kind_of(case)
        self.expected = array(case["expected"])
        self.config = (case["params"] or {}).get("attrs", {}) | UNSTATED.get(case["id"], {})
        self.inputs = [array(x) for x in case.get("inputs", [case.get("input")])]
        self.models = [self.model(layers) for layers in self.architectures()]

    def architectures(self) -> list[list[dict]]:
        """The layers, in as many versions as there are candidates."""
        kind, config = self.kind, self.config
        if kind in ("graph", "pipeline"):
            return [self.graph()]
        if self.case["id"].startswith("merge."):
            return [self.branches()]
        if kind in ("Dropout", "GaussianDropout", "GaussianNoise"):
            dense = entry("Dense", "dense", ["input_0"], {"units": 2})
            return [[dense, entry(kind, "layer", ["dense"], config)]]
        if kind in ("Dense", "Activation") and "units" not in config:
            units = {"units": 2, "use_bias": len(self.case["weights"]) == 2}
            return [
                [entry("Dense", "layer", ["input_0"], {**units, "activation": name})]
                for name in ACTIVATIONS
            ]
        if self.case["id"].startswith("activations."):
            kind = LAYERS_OF.get(self.case["id"], "Activation")
            config = config or {"activation": self.kind}
        if kind == "TimeDistributed":  # the file leaves out what the layer inside is called
            inside = config["layer"]
            config = {"layer": inside | {"config": {"name": "inside", **inside["config"]}}}
        return [[entry(kind, "layer", ["input_0"], config)]]

    def branches(self) -> list[dict]:
        """Dense layers side by side, repeated where the result has two axes, and joined."""
        count = len(self.case["weights"]) // 2
        units = {"units": self.case["weights"][0]["shape"][1]}
        layers = [entry("Dense", f"dense_{i}", ["input_0"], units) for i in range(count)]
        names = [layer["name"] for layer in layers]
        if self.expected.ndim == 2:
            repeats = [entry("RepeatVector", f"r_{name}", [name], {"n": 3}) for name in names]
            layers, names = layers + repeats, [layer["name"] for layer in repeats]
        own = {key: value for key, value in self.config.items() if key != "units"}
        return [*layers, entry(self.kind, "layer", names, own)]

    def graph(self) -> list[dict]:
        layers = []
        for layer in self.case["params"]["layers"]:
            branch = layer.get("branch", 0)
            inbound = layer["inbound"] or [f"input_{min(branch, len(self.inputs) - 1)}"]
            attributes = layer["attrs"]
            layers.append(entry(layer["layerClass"], attributes["name"], inbound, attributes))
        return layers

    def model(self, layers: list[dict]) -> KerasModel:
        """A functional Keras 2 model, weights dealt out in order."""
        names = [f"input_{i}" for i in range(len(self.inputs))]
        placeholders = [
            entry("InputLayer", name, [], {"batch_input_shape": [None, *x.shape]})
            for name, x in zip(names, self.inputs, strict=True)
        ]
        read = {node[0] for layer in layers for node in layer["inbound_nodes"][0]}
        config = {
            "layers": placeholders + layers,
            "input_layers": [[name, 0, 0] for name in names],
            "output_layers": [[e["name"], 0, 0] for e in layers if e["name"] not in read],
        }
        architecture = {"class_name": "Model", "config": config, "keras_version": "2.1.2"}
        stored = iter(self.case.get("weights", []))

        def arrays(path: tuple[str, ...]) -> list[np.ndarray]:
            layer = next(layer for layer in layers if layer["name"] == path[0])
            return [array(next(stored)) for _ in range(count_weights(layer))]

        return from_arrays(archive_from_config(architecture), arrays, Overrides({}))


def count_weights(layer: dict) -> int:
    bias = layer["config"].get("use_bias", True)
    kind = layer["class_name"]
    if kind == "BatchNormalization":
        return 2 + layer["config"].get("scale", True) + layer["config"].get("center", True)
    if kind.startswith("SeparableConv"):
        return 2 + bias
    return 1 if kind in ("PReLU", "Embedding") else 1 + bias


def kind_of(case: dict) -> str:
    return case["id"].split(".")[-2] if "." in case["id"] else case["id"].split("_")[0]


KNOWN = {case["id"]: case for case in CASES if kind_of(case) not in REFUSED}


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[np.ndarray]]:
    """What ours computes for every case, in one compiled program."""
    cases = {name: Case(case) for name, case in KNOWN.items()}
    models = {name: case.models for name, case in cases.items()}
    inputs = {name: [x[None] for x in case.inputs] for name, case in cases.items()}
    # The program runs once: compiling it takes far longer than that.
    found = jax.jit(
        lambda models, inputs: {
            name: [model(inputs[name])[0] for model in models[name]] for name in models
        },
        compiler_options={"xla_backend_optimization_level": 0},
    )(models, inputs)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("name", KNOWN or ["none"])
def test_a_layer_computes_what_keras_2_computed(name, outputs):
    if not KNOWN:
        pytest.skip("JAXVIZ_DATA does not name the folder of test data")
    expected = array(KNOWN[name]["expected"])
    assert all(y.shape == expected.shape for y in outputs[name])
    assert min(np.abs(y - expected).max() for y in outputs[name]) < 2e-5 * max(
        1, np.abs(expected).max()
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_recurrent_layers_are_refused_by_name(kind):
    assert not CASES or kind in {kind_of(case) for case in CASES}
    layer = {"class_name": kind, "config": {"name": "r", "units": 2}}
    with pytest.raises(KerasFileError, match=f'{kind} .1 layer: "r"'):
        load_keras({"class_name": "Sequential", "config": [layer]}, input_shape=(3, 2))
