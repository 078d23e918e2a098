"""What older versions of Keras wrote otherwise, where no real file of ours shows it."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.keras import KerasFileError, load_keras
from jaxviz.keras.architecture.config import Layer
from jaxviz.keras.architecture.legacy import is_older, modernise, rotates_kernels
from jaxviz.keras.files.weights import Era, Slot, to_modern


def sequential(*layers: tuple[str, dict], shape=(6, 6, 2)) -> dict:
    """A list configuration of Keras 1, the input's shape on its first layer."""
    entries = [{"class_name": kind, "config": {"name": f"l{i}", **config}}
               for i, (kind, config) in enumerate(layers)]  # fmt: skip
    entries[0]["config"]["batch_input_shape"] = [None, *shape]
    return {"class_name": "Sequential", "config": entries}


def write(path, layers: dict[str, list], **attributes) -> None:
    """A weights file in the named layout."""
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        file.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for name, arrays in layers.items():
            group = file.create_group(name)
            names = [f"{name}_{i}".encode() for i in range(len(arrays))]
            group.attrs["weight_names"] = np.array(names) if names else np.zeros(0)
            for weight, array in zip(names, arrays, strict=True):
                group[weight.decode()] = array


def slow_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Σ x[i+a, j+b, c]·kernel[a, b, c, o], kernel in today's layout, images (H, W, C)."""
    high, wide = kernel.shape[:2]
    out = np.zeros((x.shape[0] - high + 1, x.shape[1] - wide + 1, kernel.shape[-1]))
    for i, j in np.ndindex(out.shape[:2]):
        out[i, j] = np.einsum("abc,abco->o", x[i : i + high, j : j + wide], kernel)
    return out


@pytest.mark.parametrize("ordering", ["th", "tf"])
def test_keras_1_kernels_are_turned_into_todays(ordering, tmp_path, rng):
    kernel = rng.normal(size=(3, 2, 2, 4))
    stored = kernel[::-1, ::-1].transpose(3, 2, 0, 1) if ordering == "th" else kernel
    config = {"nb_filter": 4, "nb_row": 3, "nb_col": 2, "dim_ordering": ordering, "bias": False,
              "border_mode": "valid", "subsample": [1, 1], "init": "normal"}  # fmt: skip
    shape = (2, 6, 6) if ordering == "th" else (6, 6, 2)
    write(tmp_path / "w.h5", {"l0": [stored.astype(np.float32)]})
    model = load_keras((sequential(("Convolution2D", config), shape=shape), tmp_path / "w.h5"))
    x = rng.normal(size=(6, 6, 2)).astype(np.float32)
    given = x.transpose(2, 0, 1) if ordering == "th" else x
    found = np.asarray(model(given[None])[0])
    found = found.transpose(1, 2, 0) if ordering == "th" else found
    np.testing.assert_allclose(found, slow_convolution(x, kernel), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "stored", "modern", "first"),
    [
        ("Conv1D", (5, 3, 7, 1), (7, 3, 5), False),
        ("Conv1D", (7, 1, 3, 5), (7, 3, 5), False),
        ("Conv2D", (5, 3, 7, 6), (7, 6, 3, 5), True),
        ("Conv3D", (5, 3, 7, 6, 4), (7, 6, 4, 3, 5), True),
        ("Conv2DTranspose", (5, 3, 7, 6), (7, 6, 5, 3), True),
        ("Conv2DTranspose", (7, 6, 3, 5), (7, 6, 5, 3), False),
        ("Dense", (5, 3), (5, 3), False),
    ],
)
def test_keras_1_layouts_become_todays(kind, stored, modern, first):
    config = {"data_format": "channels_first" if first else "channels_last"}
    array = np.arange(np.prod(stored), dtype=np.float32).reshape(stored)
    slot = Slot(("l",), Layer("l", kind, config), ["kernel"], [array])
    kernel = to_modern(slot, Era(False, True))["kernel"]
    assert kernel.shape == modern and sorted(kernel.ravel()) == sorted(array.ravel())


@pytest.mark.parametrize("kind", ["Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose"])
def test_theano_rotates_the_window_and_nothing_else(kind, rng):
    rank = int(kind[4])
    array = rng.normal(size=(2, 3, 4)[:rank] + (2, 2)).astype(np.float32)
    slot = Slot(("l",), Layer("l", kind, {}), ["kernel"], [array])
    rotated = to_modern(slot, Era(True, False))["kernel"]
    np.testing.assert_array_equal(rotated, np.flip(array, tuple(range(rank))))


@pytest.mark.parametrize("backend", ["theano", "tensorflow"])
def test_rotation_can_be_forced_either_way(backend, tmp_path, rng):
    kernel = rng.normal(size=(3, 2, 2, 4)).astype(np.float32)
    write(tmp_path / "w.h5", {"l0": [kernel]}, keras_version="2.0.8", backend=backend)
    config = {"filters": 4, "kernel_size": [3, 2], "use_bias": False}
    pair = (sequential(("Conv2D", config)), tmp_path / "w.h5")
    x = rng.normal(size=(6, 6, 2)).astype(np.float32)
    turned = {"rotated": True, "as stored": False, "auto": backend == "theano"}
    for kernels, rotate in turned.items():
        found = load_keras(pair, kernels=kernels)(x[None])[0]
        expected = slow_convolution(x, kernel[::-1, ::-1] if rotate else kernel)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dense_and_depthwise_kernels_are_never_rotated(rng):
    for kind, shape in (("Dense", (3, 4)), ("DepthwiseConv2D", (3, 3, 2, 1))):
        array = rng.normal(size=shape).astype(np.float32)
        slot = Slot(("l",), Layer("l", kind, {}), ["kernel"], [array])
        np.testing.assert_array_equal(to_modern(slot, Era(True, False))["kernel"], array)


def test_who_rotates_is_told_by_the_file():
    th = {"config": [{"config": {"dim_ordering": "th"}}]}
    assert rotates_kernels("2.0.6", "theano", None) and rotates_kernels(None, None, th)
    assert not rotates_kernels(None, "tensorflow", th) and not rotates_kernels("2.1", None, th)
    assert not rotates_kernels(None, None, {"dim_ordering": "tf"})
    assert is_older("2.1.9", (2, 2)) and not is_older("2.2.0-tf", (2, 2)) and is_older("x", (1, 1))


@pytest.mark.parametrize("mode", [0, None])
def test_batch_norm_of_keras_1_is_read(mode, tmp_path, rng):
    arrays = [rng.uniform(0.5, 2, 2).astype(np.float32) for _ in range(4)]
    config = {"mode": mode, "epsilon": 1e-5, "axis": -1, "gamma_regularizer": None, "momentum": 0.9}
    if mode is None:
        del config["mode"]
    write(tmp_path / "w.h5", {"l0": arrays}, keras_version="1.2.0")
    model = load_keras((sequential(("BatchNormalization", config)), tmp_path / "w.h5"))
    x = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    gamma, beta, mean, variance = arrays
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("declared", [[None, 12, 12, 3], [None, None, None, 3], None])
def test_a_deconvolution_of_keras_1_has_the_size_it_asks_for(declared, tmp_path, rng):
    kernel = rng.normal(size=(2, 2, 3, 2)).astype(np.float32)
    write(tmp_path / "w.h5", {"l0": [kernel.transpose(0, 1, 3, 2), np.zeros(3, np.float32)]})
    config = {"nb_filter": 3, "nb_row": 2, "nb_col": 2, "subsample": [2, 2], "dim_ordering": "tf",
              "border_mode": "valid", "output_shape": declared}  # fmt: skip
    x = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    model = load_keras((sequential(("Deconvolution2D", config)), tmp_path / "w.h5"))
    expected = np.einsum("nijc,abfc->niajbf", x, kernel).reshape(1, 12, 12, 3)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    other = sequential(("Deconvolution2D", {**config, "output_shape": [None, 13, 12, 3]}))
    with pytest.raises(KerasFileError, match=r"shape \(12, 12, 3\), and \(13, 12, 3\) is asked"):
        load_keras((other, tmp_path / "w.h5"))


@pytest.mark.parametrize(
    "kind", ["BatchNormalizationV1", "BatchNormalizationV2", "FusedBatchNormalization",
             "SyncBatchNormalization"]
)  # fmt: skip
def test_ancestors_of_batch_norm_are_batch_norms(kind, tmp_path, rng):
    arrays = [rng.uniform(0.5, 2, 6).astype(np.float32) for _ in range(3)]
    config = {"scale": False, "axis": [1], "epsilon": 1e-3, "fused": True}
    write(tmp_path / "w.h5", {"l0": arrays}, keras_version="2.2.4-tf")
    model = load_keras((sequential((kind, config)), tmp_path / "w.h5"))
    x = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    beta, mean, variance = (a[:, None, None] for a in arrays)
    np.testing.assert_allclose(model(x), (x - mean) / np.sqrt(variance + 1e-3) + beta, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 0])
def test_flags_may_be_numbers(scale, tmp_path, rng):
    arrays = [rng.uniform(0.5, 2, 2).astype(np.float32) for _ in range(3 + scale)]
    write(tmp_path / "w.h5", {"l0": arrays}, keras_version="2.1.0")
    config = {"scale": scale, "center": 1.0, "epsilon": 1e-3}
    model = load_keras((sequential(("BatchNormalization", config)), tmp_path / "w.h5"))
    x = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    beta, mean, variance = arrays[scale:]
    gamma = arrays[0] if scale else 1.0
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    for wrong in (2, "yes", None):
        other = sequential(("BatchNormalization", {**config, "scale": wrong}))
        with pytest.raises(KerasFileError, match="field `scale` must be true or false: got"):
            load_keras((other, tmp_path / "w.h5"))


@pytest.mark.parametrize("trainable", [False, 0])
def test_a_frozen_layer_of_a_nested_model_is_stored_last(trainable, tmp_path, rng):
    kernels = [rng.normal(size=(2, 2)).astype(np.float32) for _ in range(2)]
    entries = [("Dense", {"units": 2, "use_bias": False, "trainable": trainable, "name": "a"}),
               ("Dense", {"units": 2, "use_bias": False, "name": "b"})]  # fmt: skip
    inner = sequential(*entries, shape=(2,))
    inner["config"] = {"name": "inner", "layers": inner["config"]}
    model = {"class_name": "Sequential", "config": [inner]}
    write(tmp_path / "w.h5", {"inner": [kernels[1], kernels[0]]}, keras_version="2.9.0")
    found = load_keras((model, tmp_path / "w.h5"))
    np.testing.assert_array_equal(found.inner.a.kernel[...], kernels[0])
    np.testing.assert_array_equal(found.inner.b.kernel[...], kernels[1])


def test_batch_norm_of_another_mode_is_refused(tmp_path):
    write(tmp_path / "w.h5", {"l0": [np.ones(2, np.float32)] * 4})
    with pytest.raises(
        KerasFileError, match=r'"l0" \(BatchNormalization\): field `mode` must be 0'
    ):
        load_keras((sequential(("BatchNormalization", {"mode": 1})), tmp_path / "w.h5"))


@pytest.mark.parametrize(
    ("version", "field"),
    [
        *((version, "channels_first") for version in ("2.1.6", "2.1.6-tf", "2.2.4", "3.1.0")),
        ("2.1.5-tf", "channels_first"),
        ("2.1.6", "channels_last"),
        ("2.1.6-tf", None),
        ("2.1.2", "absent"),
        (None, "absent"),
    ],
)
def test_flatten_moves_channels_where_its_field_says_so(version, field, tmp_path, rng):
    attributes = {"keras_version": version} if version else {}
    write(tmp_path / "w.h5", {"l1": [np.eye(12, dtype=np.float32)]}, **attributes)
    config = {} if field == "absent" else {"data_format": field}
    dense = ("Dense", {"units": 12, "use_bias": False})
    model = sequential(("Flatten", config), dense, shape=(3, 2, 2))
    model["keras_version"] = version
    x = rng.normal(size=(1, 3, 2, 2)).astype(np.float32)
    expected = x.transpose(0, 2, 3, 1) if field == "channels_first" else x
    found = load_keras((model, tmp_path / "w.h5"))(x)
    np.testing.assert_allclose(found, expected.reshape(1, 12), atol=1e-6)


@pytest.mark.parametrize("version", ["2.0.6", None])
def test_flatten_moves_no_channels_under_weights_older_than_its_field(version, tmp_path, rng):
    attributes = {"keras_version": version} if version else {}
    write(tmp_path / "w.h5", {"l1": [np.eye(12, dtype=np.float32)]}, **attributes)
    dense = ("Dense", {"units": 12, "use_bias": False})
    flatten = ("Flatten", {"data_format": "channels_first"})
    model = {**sequential(flatten, dense, shape=(3, 2, 2)), "keras_version": "3.1.0"}
    x = rng.normal(size=(1, 3, 2, 2)).astype(np.float32)
    found = load_keras((model, tmp_path / "w.h5"))(x)
    np.testing.assert_allclose(found, x.reshape(1, 12), atol=1e-6)


@pytest.mark.parametrize(
    ("version", "expected"), [("2.9.0", 0.2 * 0.7 + 0.5), ("3.0.1", 0.7 / 6 + 0.5)]
)
def test_hard_sigmoid_follows_its_time(version, expected):
    model = sequential(("Activation", {"activation": "hard_sigmoid"}), shape=(1,))
    model["keras_version"] = version
    found = load_keras(model)(np.full((1, 1), 0.7, np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def slow_corner_bilinear(x: np.ndarray, factors: tuple[int, int]) -> np.ndarray:
    """Images (H, W, C): y[i, j] interpolates x at (i/f, j/g), the last pixels repeated."""
    high, wide = x.shape[0] * factors[0], x.shape[1] * factors[1]
    out = np.zeros((high, wide, x.shape[2]))
    for i, j in np.ndindex(high, wide):
        (a, b), (s, t) = (i // factors[0], j // factors[1]), (i / factors[0], j / factors[1])
        c, d = min(a + 1, x.shape[0] - 1), min(b + 1, x.shape[1] - 1)
        top = (1 - (t - b)) * x[a, b] + (t - b) * x[a, d]
        bottom = (1 - (t - b)) * x[c, b] + (t - b) * x[c, d]
        out[i, j] = (1 - (s - a)) * top + (s - a) * bottom
    return out


def enlarging(version: str, backend: str | None = None, **config) -> dict:
    """A Keras 2 model that enlarges bilinearly, "backend" as the file states it."""
    kinds = {"interpolation": "bilinear", "size": [2, 3], **config}
    shape = (2, 4, 5) if config.get("data_format") == "channels_first" else (4, 5, 2)
    model = sequential(("UpSampling2D", kinds), shape=shape)
    return {**model, "keras_version": version, **({"backend": backend} if backend else {})}


@pytest.mark.slow
@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("version", "backend"), [("2.2.4", "tensorflow"), ("2.2.2", None), ("2.1.6-tf", "tensorflow")]
)
def test_bilinear_enlarging_before_keras_2_3_samples_at_corners(version, backend, order, rng):
    model = load_keras(enlarging(version, backend, data_format=order))
    x = rng.normal(size=(4, 5, 2)).astype(np.float32)
    given = x if order == "channels_last" else x.transpose(2, 0, 1)
    found = np.asarray(model(given[None])[0])
    found = found if order == "channels_last" else found.transpose(1, 2, 0)
    np.testing.assert_allclose(found, slow_corner_bilinear(x, (2, 3)), atol=1e-6)


@pytest.mark.parametrize("version", ["2.3.0", "2.2.4-tf", "2.9.0", "3.1.0"])
def test_bilinear_enlarging_since_keras_2_3_samples_at_centres(version, rng):
    x = rng.normal(size=(1, 4, 5, 2)).astype(np.float32)
    model = load_keras(enlarging(version, "tensorflow", ragged=False))
    expected = jax.image.resize(x, (1, 8, 15, 2), "bilinear")
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    assert np.abs(np.asarray(expected[0]) - slow_corner_bilinear(x[0], (2, 3))).max() > 0.1


@pytest.mark.parametrize(
    ("version", "backend", "author"),
    [("2.2.4-tf", "tensorflow", "TensorFlow 1.13 to 2.1"), ("2.2.4", "theano", "theano")],
)
def test_bilinear_enlarging_by_others_is_refused_or_supplied(version, backend, author):
    model = enlarging(version, backend)
    with pytest.raises(KerasFileError, match=f"bilinear of {author}>UpSampling2D .1 layer"):
        load_keras(model)

    def convert(config, weights):
        return lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 3, 2)

    supplied = load_keras(model, custom_layers={"UpSampling2D": convert})
    assert supplied.output_shape == (8, 15, 2)


def test_paddings_of_keras_1_are_read_in_every_spelling():
    sides = {"top_pad": 1, "bottom_pad": 2, "left_pad": 0, "right_pad": 3}
    for padding in (sides, [1, 2, 0, 3], [[1, 2], [0, 3]]):
        model = load_keras(sequential(("ZeroPadding2D", {"padding": padding})))
        found = np.asarray(model(np.ones((1, 6, 6, 2), np.float32)))
        assert found.shape == (1, 9, 9, 2) and found[0, 1:7, :6].all() and found.sum() == 72
    with pytest.raises(KerasFileError, match="`padding` must be amounts for 2 axes"):
        load_keras(sequential(("ZeroPadding2D", {"padding": [1, -2]})))


@pytest.mark.parametrize("mode", ["sum", "mul", "ave", "max", "concat", "dot", "cos"])
def test_merge_modes_have_todays_names(mode):
    kind, config = modernise("Merge", {"mode": mode, "concat_axis": 3, "dot_axes": 2})
    expected = {"concat": {"axis": 3}, "dot": {"axes": 2, "normalize": False},
                "cos": {"axes": 2, "normalize": True}}  # fmt: skip
    assert config == expected.get(mode, {}) and kind in ("Add", "Multiply", "Average", "Maximum",
                                                        "Concatenate", "Dot")  # fmt: skip


def test_a_merge_by_function_is_refused():
    entry = ("Merge", {"mode": "join", "function": "4wAAAA=="})
    with pytest.raises(KerasFileError, match=r'Merge \(1 layer: "l0"\)'):
        load_keras(sequential(entry))


def test_masks_that_matter_are_refused(tmp_path):
    write(tmp_path / "w.h5", {"l0": [np.ones((5, 2), np.float32)]}, keras_version="2.4.0")
    embedding = ("Embedding", {"input_dim": 5, "output_dim": 2, "mask_zero": True})
    model = sequential(embedding, ("GlobalAveragePooling1D", {}), shape=(4,))
    with pytest.raises(KerasFileError, match="reads the mask of an embedding"):
        load_keras((model, tmp_path / "w.h5"))
    model = sequential(embedding, ("GlobalMaxPooling1D", {}), shape=(4,))
    found = load_keras((model, tmp_path / "w.h5"))(np.zeros((1, 4), np.int64))
    np.testing.assert_array_equal(found, np.ones((1, 2)))


def test_labels_are_those_of_the_file_or_the_caller(tmp_path):
    model = sequential(("Dense", {"units": 2, "use_bias": False}), shape=(3,))
    write(tmp_path / "w.h5", {"l0": [np.ones((3, 2), np.float32)]}, class_names=["cat", "dog"])
    pair = (model, tmp_path / "w.h5")
    assert load_keras(pair).class_names == ("cat", "dog")
    assert load_keras(pair, class_names=["a", "b"]).class_names == ("a", "b")
    assert load_keras(sequential(("ReLU", {}))).class_names is None
    with pytest.raises(ValueError, match="`class_names` must name 2 classes: got 1 names"):
        load_keras(pair, class_names=["a"])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"dtype": "int8"}, "`dtype` must be one of"), ({"kernels": 3}, "`kernels` must be")],
)
def test_options_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        load_keras(sequential(("ReLU", {})), **given)


def test_a_pair_is_one_file_or_two():
    with pytest.raises(ValueError, match="`path` must be one file or a pair of them: got 3"):
        load_keras([sequential(("ReLU", {}))] * 3)
    for neither in (3, b"model.keras", [sequential(("ReLU", {})), None]):
        with pytest.raises(TypeError, match="`path` must be a file or a pair of them: got"):
            load_keras(neither)
    with pytest.raises(KerasFileError, match="second file of the pair must hold weights"):
        load_keras([sequential(("ReLU", {}))] * 2)


@pytest.mark.parametrize(
    ("version", "shape"), [("2.13.1", (4, 3, 2)), ("3.5.0", (4, 3, 2)), ("3.8.0", (6, 8, 2))]
)
def test_random_crops_follow_their_time_at_inference(version, shape, rng):
    model = sequential(("RandomCrop", {"height": 4, "width": 3, "seed": 1}), shape=(6, 8, 2))
    loaded = load_keras({**model, "keras_version": version})
    x = rng.normal(size=(1, 6, 8, 2)).astype(np.float32)
    # 4 : 3 of a height of 6 is 4 columns of 8, the middle ones; then 6x4 is resized to 4x3.
    cut = jax.image.resize(x[:, :, 2:6], (1, 4, 3, 2), "bilinear", antialias=False)
    assert loaded.output_shape == shape
    np.testing.assert_allclose(loaded(x), x if shape[0] == 6 else cut, atol=1e-6)


@pytest.mark.parametrize("version", [None, "2.4.0", "3.6.0", "3.7.0"])
def test_random_crops_of_a_time_that_is_not_known_are_refused(version):
    model = sequential(("RandomCrop", {"height": 4, "width": 3}))
    with pytest.raises(KerasFileError, match="Keras.*>RandomCrop .1 layer"):
        load_keras({**model, "keras_version": version})


@pytest.mark.slow
def test_an_einsum_of_anything_else_is_refused(tmp_path):
    write(tmp_path / "w.h5", {"l0": [np.ones((2, 2), np.float32)]}, keras_version="2.9.0")
    model = sequential(("EinsumDense", {"equation": "ab,bc", "output_shape": 2}), shape=(2,))
    with pytest.raises(KerasFileError, match="field `equation` must be of two operands"):
        load_keras((model, tmp_path / "w.h5"))
