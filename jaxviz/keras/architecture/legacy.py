"""Old spellings to today's: the layers of Keras 1 and 2 written as Keras 3 would write them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxviz.keras.architecture.config import Layer, Model

_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "Deconvolution3D": "Conv3DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Convolution3DTranspose": "Conv3DTranspose",
    "SeparableConvolution1D": "SeparableConv1D",
    "SeparableConvolution2D": "SeparableConv2D",
    "DepthwiseConvolution2D": "DepthwiseConv2D",
    "MaxPool1D": "MaxPooling1D",
    "MaxPool2D": "MaxPooling2D",
    "MaxPool3D": "MaxPooling3D",
    "AvgPool1D": "AveragePooling1D",
    "AvgPool2D": "AveragePooling2D",
    "AvgPool3D": "AveragePooling3D",
    "GlobalMaxPool1D": "GlobalMaxPooling1D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "GlobalMaxPool3D": "GlobalMaxPooling3D",
    "GlobalAvgPool1D": "GlobalAveragePooling1D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "GlobalAvgPool3D": "GlobalAveragePooling3D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "FusedBatchNormalization": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "DenseV2": "Dense",
}
_FIELDS = {
    "dim_ordering": "data_format",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "output_dim": "units",
    "pool_length": "pool_size",
    "stride": "strides",
    "sigma": "stddev",
    "p": "rate",
    "length": "size",
    "concat_axis": "axis",
    "activity_regulariser": "activity_regularizer",
}
# What these classes call by an old name to this day.
_KEPT = {
    "Embedding": {"output_dim"},
    "RepeatVector": {"n"},
    "Cropping1D": {"length"},
}
_ORDERINGS = {"th": "channels_first", "tf": "channels_last", "default": "channels_last"}
_MERGES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
    "cos": "Dot",
}


def modernise(class_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the class and the configuration that today's Keras would write for a layer.

    Example:
        >>> modernise("Convolution2D", {"nb_filter": 4, "nb_row": 3, "nb_col": 5})
        ('Conv2D', {'filters': 4, 'kernel_size': [3, 5]})
    """
    name = _CLASSES.get(class_name, class_name)
    kept = _KEPT.get(name, set())
    modern: dict[str, Any] = {}
    for field, value in config.items():
        new = field if field in kept else _FIELDS.get(field, field)
        modern[new] = (
            _ORDERINGS.get(value, value) if new == "data_format" and _is_text(value) else value
        )
    # Keras 1 gave the window one field an axis: kernel_dim1 to 3, or nb_row and nb_col.
    axes = [modern.pop(k) for k in ("kernel_dim1", "kernel_dim2", "kernel_dim3") if k in modern]
    axes = axes or [modern.pop(k) for k in ("nb_row", "nb_col") if k in modern]
    if axes:
        modern["kernel_size"] = axes
    if name == "Merge":
        return _modern_merge(modern)
    return name, modern


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _modern_merge(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    mode = config.pop("mode", None)
    kind = _MERGES.get(mode) if _is_text(mode) else None
    for field in ("mode_type", "arguments", "output_shape", "output_shape_type", "output_mask"):
        config.pop(field, None)
    config.pop("output_mask_type", None)
    if kind is None:
        return "Merge", {**config, "mode": mode}
    if kind == "Dot":
        config["axes"], config["normalize"] = config.pop("dot_axes", -1), mode == "cos"
    config.pop("dot_axes", None)
    if kind != "Concatenate":
        config.pop("axis", None)
    return kind, config


def rotates_kernels(keras_version: str | None, backend: str | None, config: Any) -> bool:
    """Return whether convolution kernels are stored for Theano, rotated by 180 degrees.

    True when the file says Theano, or says no backend and its layers use Keras 1's "th" ordering.
    """
    if backend is not None:
        return backend == "theano"
    return is_older(keras_version, (2, 0)) and _mentions(config, "dim_ordering", "th")


def is_older(keras_version: str | None, than: tuple[int, ...]) -> bool:
    """Return whether a file's Keras is older; only Keras 1 wrote no version.

    Example:
        >>> is_older("2.0.6", (2, 2)), is_older(None, (2, 0)), is_older("3.15.1", (2, 2))
        (True, True, False)
    """
    parts = (keras_version or "1").partition("-")[0].split(".") + ["0", "0"]
    numbers = (int(part) if part.isdigit() and len(part) < 9 else 0 for part in parts)
    return tuple(numbers)[: len(than)] < than


def _mentions(config: Any, field: str, value: Any = None) -> bool:
    """Whether a field stands anywhere in a configuration, with that value if one is given."""
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            if field in node and value in (None, node[field]):
                return True
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return False


def adapt_to_era(
    model: "Model", keras_version: str | None, backend: str | None = None, config: Any = None
) -> None:
    """Change, in place, the layers of an old file that computed something else under the same name.

    Hard sigmoid was another function before Keras 3; enlarging bilinearly sampled elsewhere before
    Keras 2.3; what random crops do at inference changed twice.
    """
    for layer in model.layers:
        if layer.model is not None:
            adapt_to_era(layer.model, keras_version, backend, config)
        if layer.class_name == "RandomCrop":
            _adapt_random_crop(layer, keras_version)
        if is_older(keras_version, (3, 0)):
            _rename_hard_sigmoid(layer.config)
        if layer.config.get("interpolation") == "bilinear" and is_older(keras_version, (2, 3)):
            _adapt_bilinear(layer, keras_version, backend, config)


def flatten_as_stored(model: "Model") -> None:
    """Take the layout off every Flatten: its weights are of a Keras that moved no channels.

    Flatten moves channels since it has the field, which came in Keras 2.1.6: in a file the field
    decides. But an architecture written by a later Keras may be given with weights of an older one.
    """
    for layer in model.layers:
        if layer.model is not None:
            flatten_as_stored(layer.model)
        if layer.class_name == "Flatten":
            layer.config.pop("data_format", None)


def _adapt_bilinear(
    layer: "Layer", keras_version: str | None, backend: str | None, config: Any
) -> None:
    """Mark a layer that enlarges bilinearly as Keras did before 2.3.

    Where the file does not tell which way was used, the class is renamed, and so refused.
    """
    # Keras inside TensorFlow is "2.2.4-tf". TensorFlow 1.15 changed it under an unchanged version,
    # but wrote a field `ragged` as well.
    if not (keras_version or "").endswith("-tf"):
        author = None if backend in (None, "tensorflow") else backend[:20]
    elif _mentions(config, "ragged"):
        return
    else:
        author = None if is_older(keras_version, (2, 2)) else "TensorFlow 1.13 to 2.1"
    if author is not None:
        layer.class_name = f"bilinear of {author}>{layer.class_name}"
    layer.config["interpolation"] = "bilinear_legacy"


def _adapt_random_crop(layer: "Layer", keras_version: str | None) -> None:
    """Say what a random crop does at inference; where the file does not tell, it is refused.

    Up to 3.5 Keras cut out the middle in the shape that is asked for and resized it. 3.6 and 3.7
    cut beside the middle; since 3.8 `predict` leaves the image as it is, of whatever size.
    """
    if keras_version is None or "." not in keras_version:
        layer.class_name = "an unknown Keras>RandomCrop"
    elif is_older(keras_version, (2, 9)):
        layer.class_name = "Keras before 2.9>RandomCrop"
    elif is_older(keras_version, (3, 6)):
        layer.config["at_inference"] = "fit"
    elif is_older(keras_version, (3, 8)):
        layer.class_name = "Keras 3.6 and 3.7>RandomCrop"
    else:
        layer.config["at_inference"] = "nothing"


def _rename_hard_sigmoid(config: dict[str, Any]) -> None:
    for key in ("activation", "recurrent_activation"):
        if config.get(key) == "hard_sigmoid":
            config[key] = "hard_sigmoid_legacy"
