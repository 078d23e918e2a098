"""TensorFlow operations in Keras 2 models, translated to the names and arguments of Keras 3."""

import json
from collections.abc import Mapping
from typing import Any

_SAME = {"x": "x1", "y": "x2", "a": "x1", "b": "x2"}
_FIRST = {"x": "x", "features": "x", "input": "x", "logits": "x", "t": "x", "a": "x"}
_REDUCE = {"input_tensor": "x", "axis": "axis", "keepdims": "keepdims", "keep_dims": "keepdims"}

# function name: (operation, {its argument: ours})
FUNCTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "add": ("Add", _SAME),
    "subtract": ("Subtract", _SAME),
    "sub": ("Subtract", _SAME),
    "multiply": ("Multiply", _SAME),
    "mul": ("Multiply", _SAME),
    "truediv": ("TrueDivide", _SAME),
    "divide": ("TrueDivide", _SAME),
    "realdiv": ("TrueDivide", _SAME),
    "floordiv": ("FloorDivide", _SAME),
    "pow": ("Power", _SAME),
    "maximum": ("Maximum", _SAME),
    "minimum": ("Minimum", _SAME),
    "matmul": ("Matmul", _SAME),
    "neg": ("Negative", _FIRST),
    "negative": ("Negative", _FIRST),
    "abs": ("Absolute", _FIRST),
    "exp": ("Exp", _FIRST),
    "log": ("Log", _FIRST),
    "sqrt": ("Sqrt", _FIRST),
    "rsqrt": ("Rsqrt", _FIRST),
    "square": ("Square", _FIRST),
    "erf": ("Erf", _FIRST),
    "tanh": ("Tanh", _FIRST),
    "sigmoid": ("Sigmoid", _FIRST),
    "relu": ("Relu", _FIRST),
    "relu6": ("Relu6", _FIRST),
    "elu": ("Elu", _FIRST),
    "selu": ("Selu", _FIRST),
    "silu": ("Silu", _FIRST),
    "swish": ("Silu", _FIRST),
    "softplus": ("Softplus", _FIRST),
    "softsign": ("Softsign", _FIRST),
    "identity": ("Identity", _FIRST),
    "stop_gradient": ("StopGradient", _FIRST),
    "gelu": ("Gelu", {**_FIRST, "approximate": "approximate"}),
    "leaky_relu": ("LeakyRelu", {**_FIRST, "alpha": "negative_slope"}),
    "softmax": ("Softmax", {**_FIRST, "axis": "axis"}),
    "log_softmax": ("LogSoftmax", {**_FIRST, "axis": "axis"}),
    "reduce_mean": ("Mean", _REDUCE),
    "reduce_sum": ("Sum", _REDUCE),
    "reduce_max": ("Max", _REDUCE),
    "reduce_min": ("Min", _REDUCE),
    "reduce_prod": ("Prod", _REDUCE),
    "reduce_std": ("Std", _REDUCE),
    "reduce_variance": ("Var", _REDUCE),
    "reshape": ("Reshape", {"tensor": "x", "shape": "newshape"}),
    "transpose": ("Transpose", {"a": "x", "perm": "axes"}),
    "expand_dims": ("ExpandDims", {"input": "x", "axis": "axis"}),
    "squeeze": ("Squeeze", {"input": "x", "axis": "axis"}),
    "concat": ("Concatenate", {"values": "xs", "axis": "axis"}),
    "stack": ("Stack", {"values": "x", "axis": "axis"}),
    "split": ("Split", {"value": "x", "num_or_size_splits": "indices_or_sections", "axis": "axis"}),
    "tile": ("Tile", {"input": "x", "multiples": "repeats"}),
    "cast": ("Cast", {"x": "x", "dtype": "dtype"}),
    "clip_by_value": ("Clip", {"t": "x", "clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "l2_normalize": ("L2Normalize", {"x": "x", "axis": "axis", "epsilon": "epsilon"}),
    "pad": ("Pad", {"tensor": "x", "paddings": "pad_width", "constant_values": "constant_values"}),
    "resize": (
        "Resize",
        {"images": "images", "size": "size", "method": "interpolation", "antialias": "antialias"},
    ),
    "depth_to_space": ("DepthToSpace", {"input": "x", "block_size": "block_size"}),
    "space_to_depth": ("SpaceToDepth", {"input": "x", "block_size": "block_size"}),
    "getitem": ("GetItem", {"tensor": "x", "slice_spec": "key"}),
}
_PREFIXES = ("math", "nn", "image", "linalg", "__operators__", "compat", "v1", "raw_ops", "tf")
_NODES = {
    "Add": "Add",
    "AddV2": "Add",
    "BiasAdd": "Add",
    "Sub": "Subtract",
    "Mul": "Multiply",
    "RealDiv": "TrueDivide",
    "Pow": "Power",
    "Maximum": "Maximum",
    "Minimum": "Minimum",
    "Neg": "Negative",
    "Relu": "Relu",
    "Relu6": "Relu6",
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "Exp": "Exp",
    "Sqrt": "Sqrt",
    "Square": "Square",
    "Identity": "Identity",
}


def translate_function(config: Mapping[str, Any]) -> tuple[str, dict[str, str]] | None:
    """Return a TFOpLambda's or SlicingOpLambda's operation, and its arguments' names in Keras 3.

    Example:
        >>> translate_function({"function": "math.multiply"})
        ('Multiply', {'x': 'x1', 'y': 'x2', 'a': 'x1', 'b': 'x2'})
    """
    name = config.get("function", config.get("symbol"))
    if not isinstance(name, str):
        return None
    *prefixes, last = name.split(".")
    if any(prefix not in _PREFIXES for prefix in prefixes):
        return None
    if last == "resize" and "v1" in prefixes:  # samples elsewhere
        return None
    return FUNCTIONS.get(last)


def node_operation(config: Mapping[str, Any]) -> str | None:
    """Return the operation that a TensorFlowOpLayer's `node_def` names.

    Example:
        >>> node_operation({"node_def": '{"op": "Mean"}'})
        'Mean'
    """
    node = config.get("node_def")
    if isinstance(node, str):
        try:
            node = json.loads(node)
        except (ValueError, RecursionError):
            return None
    operation = node.get("op") if isinstance(node, Mapping) else None
    return operation if isinstance(operation, str) else None


def translate_node(config: Mapping[str, Any]) -> tuple[str, dict[int, Any]] | None:
    """Return a TensorFlowOpLayer's operation, and its constant arguments by position."""
    operation = node_operation(config)
    if operation not in _NODES:
        return None
    constants = config.get("constants") or {}
    if not isinstance(constants, Mapping) or not all(str(key).isdigit() for key in constants):
        return None
    return _NODES[operation], {int(key): value for key, value in constants.items()}
