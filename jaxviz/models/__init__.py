"""Networks with real weights: MNIST's, bundled (README.md is its card), and one for photographs."""

from dataclasses import replace
from importlib.resources import as_file, files

from jaxviz.keras import KerasModel, load_keras
from jaxviz.models.efficientnet import EfficientNetLite0, efficientnet_lite0
from jaxviz.models.torch_file import WeightsFileError

__all__ = ["EfficientNetLite0", "WeightsFileError", "efficientnet_lite0", "mnist_cnn"]


def mnist_cnn() -> KerasModel:
    """Load the bundled network: (N, 28, 28, 1) in [0, 1], white on black -> (N, 10) probabilities.

    Returns:
        The model, a `flax.nnx.Module` with layers "conv2d", "conv2d_1", … "preds".

    Example:
        >>> mnist_cnn().output_shape
        (10,)
    """
    with as_file(files("jaxviz.models") / "mnist_cnn.keras") as path:
        model = load_keras(path)
    return model.with_graph(replace(model._graph, white=1.0))
