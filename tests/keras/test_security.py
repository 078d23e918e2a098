"""Hostile and damaged files: each ends in one clear error, soon, and touches nothing but itself."""

import io
import json
import os
import random
import resource
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import jax
import keras
import numpy as np
import pytest
from keras import layers

from jaxviz.keras import KerasFileError, inspect_keras, load_keras

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
FORBIDDEN = (
    "exec", "compile", "marshal", "pickle", "os.system", "os.exec", "os.spawn", "os.fork",
    "subprocess", "socket", "ctypes.dlopen", "os.remove", "os.rename", "os.mkdir", "shutil",
)  # fmt: skip
WATCH: dict = {"events": None}
# Calls of Python functions that a file may cost; the sound ones here cost some 20,000.
MAX_CALLS = 10_000_000


def _hook(event: str, args: tuple) -> None:
    events = WATCH["events"]
    if events is not None and (event == "open" or event.startswith(FORBIDDEN)):
        events.append((event, str(args[0]) if args else ""))


sys.addaudithook(_hook)


@contextmanager
def bounded_work() -> Iterator[None]:
    """Bound the calls that are made: how long they take says as much of the machine's load."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert calls < MAX_CALLS


def attempt(path, *more) -> KerasFileError | None:
    """Load a file, or two, under watch: the error that it ends in, None if it loads."""
    allowed = {str(path), *map(str, more)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WATCH["events"] = []
    try:
        with bounded_work():
            load_keras((path, *more) if more else path)
        error = None
    except KerasFileError as caught:
        error = caught
    finally:
        events, WATCH["events"] = WATCH["events"], None
    outside = [
        (event, name) for event, name in events
        if not (event == "open" and (name in allowed or name.endswith((".py", ".pyc"))))
        and not (event in ("exec", "compile", "marshal.loads") and "site-packages" in name)
    ]  # fmt: skip
    assert not [e for e in outside if e[0] == "open"], outside
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1 << 20, f"{grown} kB"
    if error is not None:
        assert not outside, outside
        assert "\n" not in str(error) and len(str(error)) < 1500
    return error


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict:
    """Small sound files of each format, and the shapes of their weights."""
    folder = tmp_path_factory.mktemp("sound")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        plain = keras.Sequential([
            keras.Input((6, 6, 1)), layers.Conv2D(2, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"), layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="preds"),
        ])  # fmt: skip
        x = keras.Input((6, 6, 1), name="x")
        y = layers.Add(name="sum")([x, layers.Conv2D(1, 3, padding="same", name="conv")(x)])
        inner = [keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.BatchNormalization()]
        y = keras.Sequential(inner, name="inner")(y) * 2.0
        graph = keras.Model(x, layers.GlobalAveragePooling2D(name="mean")(y))
        for name, model in (("plain", plain), ("graph", graph)):
            model.save(folder / f"{name}.keras")
            model.save(folder / f"{name}.h5")
            model.save_weights(folder / f"{name}.weights.h5")
            (folder / f"{name}.json").write_text(model.to_json())
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    loaded = {name: load_keras(sources(name, folder / name, folder)) for name in files}
    return {"folder": folder, **{name: (files[name], shapes(loaded[name])) for name in files}}


def sources(name: str, path, folder) -> tuple:
    """The files to load for one of them that lies at `path`: half of a pair brings the other."""
    stem, _, suffix = name.partition(".")
    if suffix == "json":
        return path, folder / f"{stem}.weights.h5"
    return (folder / f"{stem}.json", path) if suffix == "weights.h5" else (path,)


FORMATS = [f"{stem}.{suffix}" for stem in ("plain", "graph") for suffix in
           ("keras", "h5", "json", "weights.h5")]  # fmt: skip


def shapes(model) -> list:
    return [leaf.shape for leaf in jax.tree.leaves(model)]


def changed_zip(data: bytes, change) -> bytes:
    """A .keras file with its architecture changed in place."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return out.getvalue()


def layer_of(config: dict, name: str) -> dict:
    return next(e for e in config["config"]["layers"] if e["config"].get("name") == name)


def replaced(name: str, /, **fields):
    return lambda config: layer_of(config, name).update(fields)


def configured(name: str, /, **fields):
    return lambda config: layer_of(config, name)["config"].update(fields)


OBJECT = {"module": "os", "class_name": "system", "config": "touch /tmp/owned"}
FUNCTION = {"module": "os", "class_name": "function", "config": "system", "registered_name": None}
UNLOCK = {"module": "keras.config", "class_name": "enable_unsafe_deserialization", "config": {}}
LOAD = {"module": "keras.src.saving.saving_api", "class_name": "load_model", "config": {}}
CODE = {"class_name": "__lambda__", "config": {"code": "4wAAAAA=", "defaults": None}}
ARCHITECTURES = {
    "Lambda with code": (replaced("flat", class_name="Lambda", config={
        "name": "flat", "function": CODE}), 'Lambda .1 layer: "flat"'),
    "os.system as a layer": (replaced("flat", module="os", class_name="system"), "`os.system`"),
    "os.system as an activation": (configured("conv", activation=OBJECT), "`os.system`"),
    "os.system as a function": (configured("conv", activation=FUNCTION), "`os.system`"),
    "os.system as an initializer": (configured("conv", kernel_initializer=OBJECT), "`os.system`"),
    "os.system while compiling": (lambda c: c.update(compile_config={"loss": OBJECT}), "`os.sys"),
    "eval as an activation": (configured("conv", activation={
        "module": "builtins", "class_name": "function", "config": "eval"}), "`builtins.eval`"),
    "a relu of builtins' own": (configured("conv", activation="__import__"), "'__import__'"),
    "unlocking Keras": (configured("conv", kernel_regularizer=UNLOCK), "enable_unsafe"),
    "a nested load_model": (replaced("flat", **LOAD), "load_model"),
    "a nested model of its own": (replaced("flat", module="keras.src.models.model",
        class_name="load_model"), "load_model"),
    "a registered name": (replaced("flat", module=None, class_name="evil>Flatten",
        registered_name="evil>Flatten"), "evil>Flatten"),
    "a TFSMLayer": (replaced("flat", class_name="TFSMLayer", config={
        "name": "flat", "filepath": "/etc"}), "TFSMLayer"),
    "a torch module": (replaced("flat", class_name="TorchModuleWrapper"), "TorchModuleWrapper"),
    "a vocabulary file": (replaced("flat", class_name="StringLookup", config={
        "name": "flat", "vocabulary": "/etc/passwd"}), "StringLookup"),
    "an own model class": (lambda c: c.update(class_name="Subclassed"), "class 'Subclassed'"),
    "filters of 10^12": (configured("conv", filters=10**12), "`filters` must be a whole number"),
    "an input of 10^12": (lambda c: c["config"]["layers"][0]["config"].update(
        batch_shape=[None, 10**12, 6, 1]), "sizes up to"),
    "an output of 10^12": (replaced("flat", class_name="ZeroPadding2D", config={
        "name": "flat", "padding": 2**23}), "would give an array|fit together"),
    "averages over 10^9 windows": (lambda c: (c["config"]["layers"][0]["config"].update(
        batch_shape=[None, 46_000, 46_000, 1]), replaced("flat", class_name="AveragePooling2D",
        config={"name": "flat", "padding": "same", "strides": 1, "pool_size": 2})(c)),
        "would give an array|fit together"),
    "no layers": (lambda c: c["config"].update(layers=[]), "no layers"),
    "layers that are no list": (lambda c: c["config"].update(layers={"a": 1}), "no list of layers"),
    "a layer without a name": (configured("flat", name=7), "has no name"),
    "a duplicate name": (configured("flat", name="conv"), "the same name"),
    "a dropped bias": (configured("preds", use_bias=False), "no layer of the architecture uses"),
    "a dropped layer": (lambda c: c["config"]["layers"].pop(2), "no layer of the architecture"),
    "an unknown field": (configured("conv", surprise=1), "field `surprise` = 1 is not handled"),
    "a string for a number": (configured("conv", strides="many"), "field `strides` must be 2"),
    "a bool for a number": (configured("preds", units=True), "field `units` must be a whole"),
    "NaN in the architecture": (configured("norm", epsilon=float("nan")), "`epsilon` must be"),
    "an infinite rate": (replaced("flat", class_name="Dropout", config={
        "name": "flat", "rate": 1e400}), "`rate` must be a finite"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", ARCHITECTURES)
def test_hostile_architectures_are_refused(case, sound, tmp_path):
    change, message = ARCHITECTURES[case]
    path = tmp_path / "model.keras"
    path.write_bytes(changed_zip(sound["plain.keras"][0], change))
    error = attempt(path)
    assert error is not None
    with pytest.raises(KerasFileError, match=message):
        raise error
    try:
        assert not inspect_keras(path).loadable
    except KerasFileError:
        pass


def nested(depth: int) -> dict:
    """Models in models: the innermost one is evaluated 2^depth times."""
    model = {"class_name": "ReLU", "name": "r", "config": {"name": "r"}}
    for _ in range(depth):
        first = {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
                 "config": {"name": "x", "batch_shape": [None, 2]}}  # fmt: skip
        calls = [[["x", 0, 0, {}]], [["r", 0, 0, {}]]]
        inner = {**model, "name": "r", "inbound_nodes": calls}
        config = {"name": "r", "layers": [first, inner], "input_layers": [["x", 0, 0]],
                  "output_layers": [["r", 1, 0]]}  # fmt: skip
        model = {"class_name": "Functional", "name": "r", "config": config}
    return model


def within(key: str, depth: int) -> dict:
    """A layer whose configuration holds activations in activations."""
    value: dict = {"class_name": "Activation", "config": {"activation": "relu"}}
    for _ in range(depth):
        value = {"class_name": "Activation", "config": {"activation": value}}
    layer = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
    layer["config"][key] = value
    return {"class_name": "Sequential", "config": [layer]}


TEXTS = {
    "deep activations": (json.dumps(within("activation", 150)), "nested too deeply"),
    "a deep policy": (json.dumps(within("dtype", 400)), "nested too deeply"),
    "a deep field": (json.dumps(within("surprise", 90)), "field `surprise`"),
    "deep JSON": ("[" * 100_000, "nested too deeply|neither"),
    "deep JSON in an object": ('{"class_name":' * 100_000, "nested too deeply"),
    "an endless number": ('{"a": ' + "9" * 100_000 + "}", "not valid JSON"),
    "text that is no JSON": ('{"class_name": ', "not valid JSON"),
    "a list": ("[1]", "must be a JSON object"),
    "deep models": (json.dumps(nested(60)), "calls its layers|nested too deeply"),
    "as many calls as atoms": (json.dumps(nested(40)), "calls its layers"),
    "null": ('{"class_name": null}', "class 'None'"),
    "a damaged layer": ('{"class_name": "Sequential", "config": [null]}', "is damaged"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_hostile_json_is_refused(case, tmp_path):
    text, message = TEXTS[case]
    (tmp_path / "model.json").write_text(text)
    error = attempt(tmp_path / "model.json")
    with pytest.raises(KerasFileError, match=message):
        raise error or AssertionError("loaded")


def put_link(make):
    """A file whose conv kernel is what `make(file, path)` puts in its place."""

    def change(file: h5py.File, folder) -> None:
        place = "model_weights/conv/" + file["model_weights/conv"].attrs["weight_names"][0]
        del file[place]
        make(file, place, folder)

    return change


def external_storage(file, place, folder):
    (folder / "secret.bin").write_bytes(np.ones((3, 3, 1, 2), np.float32).tobytes())
    file.create_dataset(place, (3, 3, 1, 2), "f4", external=[(str(folder / "secret.bin"), 0, 72)])


def virtual(file, place, folder):
    layout = h5py.VirtualLayout((3, 3, 1, 2), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (3, 3, 1, 2))
    file.create_virtual_dataset(place, layout)


def typed(file, place, folder):
    file["type"] = np.dtype("f4")
    file.create_dataset(place, (3, 3, 1, 2), file["type"])


def cycle(file, place, folder):
    file[place] = file["model_weights"]


HDF5 = {
    "an external link": (put_link(lambda f, p, d: f.__setitem__(
        p, h5py.ExternalLink(str(d / "other.h5"), "/x"))), "more links|another place"),
    "a soft link": (put_link(lambda f, p, d: f.__setitem__(p, h5py.SoftLink("/x"))), "another pl"),
    "external storage": (put_link(external_storage), "in other files"),
    "a virtual dataset": (put_link(virtual), "from other files"),
    "a shared type": (put_link(typed), "shares types"),
    "a circle of groups": (put_link(cycle), "that it does not hold"),
    "a shape of 10^12": (put_link(lambda f, p, d: f.create_dataset(
        p, (10**6, 10**6), "f4", chunks=(100, 100))), "far more data"),
    "an unwritten array": (put_link(lambda f, p, d: f.create_dataset(
        p, (3, 3, 1, 2), "f4")), "never written"),
    "missing chunks": (put_link(lambda f, p, d: f.create_dataset(
        p, (3, 3, 1, 2), "f4", chunks=(1, 1, 1, 1))), "0 of 18 chunks|outside"),
    "text for weights": (put_link(lambda f, p, d: f.__setitem__(p, "hello")), "not numbers"),
    "complex weights": (put_link(lambda f, p, d: f.__setitem__(
        p, np.ones((3, 3, 1, 2), "c8"))), "unknown type"),
    "NaN weights": (put_link(lambda f, p, d: f.__setitem__(
        p, np.full((3, 3, 1, 2), np.nan, "f4"))), "not finite"),
    "weights of a wrong rank": (put_link(lambda f, p, d: f.__setitem__(
        p, np.ones((3, 3, 2), "f4"))), r"its kernel must have shape \(3, 3, any, 2\)"),
    "a missing array": (put_link(lambda f, p, d: None), "that it does not hold"),
    "another compression": (put_link(lambda f, p, d: f.create_dataset(
        p, data=np.ones((3, 3, 1, 2), "f4"), compression="lzf")), "compressed by filter 32000"),
    "no architecture": (lambda f, d: f.attrs.__delitem__("model_config"), "no architecture"),
    "an architecture of 5": (lambda f, d: f.attrs.__setitem__("model_config", 5), "be JSON"),
    "weights that are an array": (lambda f, d: (f.__delitem__("model_weights"), f.__setitem__(
        "model_weights", np.ones(3, "f4"))), "must be a group"),
    "weights of the model's own": (lambda f, d: f["model_weights/top_level_model_weights"].attrs
        .__setitem__("weight_names", [b"secret"]), "weights of its own"),
    "a name twice": (lambda f, d: f["model_weights"].attrs.__setitem__(
        "layer_names", [b"conv", b"conv"]), "lists twice"),
    "names that are numbers": (lambda f, d: f["model_weights"].attrs.__setitem__(
        "layer_names", [1, 2]), "list of names"),
    "fewer layers": (lambda f, d: f["model_weights"].attrs.__setitem__(
        "layer_names", [b"conv", b"norm"]), 'it lacks "preds"'),
    "fewer arrays": (lambda f, d: f["model_weights/norm"].attrs.__setitem__(
        "weight_names", f["model_weights/norm"].attrs["weight_names"][:3]), "needs 4 arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", HDF5)
def test_hostile_hdf5_is_refused(case, sound, tmp_path):
    change, message = HDF5[case]
    path = tmp_path / "model.h5"
    path.write_bytes(sound["plain.h5"][0])
    with h5py.File(path, "a") as file:
        change(file, tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones((3, 3, 1, 2), np.float32)
    error = attempt(path)
    with pytest.raises(KerasFileError, match=message):
        raise error or AssertionError("loaded")


def zipped(data: bytes, entries: list, *, without: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name != without:
                new.writestr(name, old.read(name))
        for entry, content in entries:
            new.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def link_entry() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("assets/link")
    entry.external_attr = 0o120777 << 16
    return entry


ZIPS = {
    "a path that climbs": (lambda d: zipped(d, [("../evil", "x")]), "outside itself"),
    "an absolute path": (lambda d: zipped(d, [("/tmp/evil", "x")]), "outside itself"),
    "a Windows path": (lambda d: zipped(d, [("C:\\evil", "x")]), "outside itself"),
    "a symbolic link": (lambda d: zipped(d, [(link_entry(), "/etc/passwd")]), "symbolic link"),
    "a bomb": (lambda d: zipped(d, [("model.weights.h5", bytes(400 << 20))],
               without="model.weights.h5"), "zip bomb"),
    "a bomb of JSON": (lambda d: zipped(d, [("config.json", b" " * (100 << 20))],
                       without="config.json"), "zip bomb|is the limit"),
    "no architecture": (lambda d: zipped(d, [], without="config.json"), "needs config.json"),
    "no weights": (lambda d: zipped(d, [], without="model.weights.h5"), "needs config.json"),
    "weights of NumPy": (lambda d: zipped(d, [("model.weights.npz", "x")],
                         without="model.weights.h5"), "needs config.json"),
    "weights that are no HDF5": (lambda d: zipped(d, [("model.weights.h5", "x")],
                                 without="model.weights.h5"), "not an HDF5 file"),
    "metadata that is a list": (lambda d: zipped(d, [("metadata.json", "[]")],
                                without="metadata.json"), "must be JSON objects"),
    "a million entries": (lambda d: d + b"PK\x01\x02" * 20_000, "entries"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", ZIPS)
def test_hostile_zips_are_refused(case, sound, tmp_path):
    make, message = ZIPS[case]
    path = tmp_path / "model.keras"
    path.write_bytes(make(sound["plain.keras"][0]))
    error = attempt(path)
    with pytest.raises(KerasFileError, match=message):
        raise error or AssertionError("loaded")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(sound, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(zipped(sound["plain.keras"][0], [("config.json", "{}")]))
    with pytest.raises(KerasFileError, match="two entries of the same name"):
        raise attempt(path) or AssertionError("loaded")


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(KerasFileError, match="not a regular file"):
            load_keras(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_truncation_at_every_percent_is_refused(name, sound, tmp_path):
    data, _ = sound[name]
    for percent in range(100):
        path = tmp_path / "cut"
        path.write_bytes(data[: len(data) * percent // 100])
        assert attempt(*sources(name, path, sound["folder"])) is not None, percent


def mutated(data: bytes, seed: int) -> bytes:
    """A file with flipped bits, or with bytes cut, cleared, moved or inserted."""
    draw, out = random.Random(seed), bytearray(data)
    place, length = draw.randrange(len(out)), draw.randrange(1, 64)
    match draw.choice(["flip", "flip", "flip", "cut", "clear", "move", "insert"]):
        case "flip":
            for _ in range(draw.choice([1, 1, 2, 4, 16, 64])):
                out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
        case "cut":
            del out[place:]
        case "clear":
            out[place : place + length] = bytes([draw.choice([0, 255])]) * length
        case "move":
            out[place : place + length] = out[:length]
        case _:
            out[place:place] = draw.randbytes(length)
    return bytes(out)


def fuzz(sound: dict, seeds: range, folder) -> None:
    loaded, names = 0, FORMATS
    for seed in seeds:
        data, expected = sound[names[seed % len(names)]]
        mutant = folder / "mutated"
        mutant.write_bytes(mutated(data, seed))
        try:
            with bounded_work():
                model = load_keras(sources(names[seed % len(names)], mutant, sound["folder"]))
        except KerasFileError:
            model = None
        if model is not None:
            loaded += 1
            assert shapes(model) == expected, f"seed {seed} loads with other weights"
    assert 0 < loaded < len(seeds) / 2


@pytest.mark.slow
def test_mutated_files_are_refused_or_complete(sound, tmp_path):
    fuzz(sound, range(400), tmp_path)


@pytest.mark.slow
def test_5000_mutated_files_are_refused_or_complete(sound, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz(sound, range(400, 5400), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
