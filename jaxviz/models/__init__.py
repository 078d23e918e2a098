"""The bundled MNIST network and the script that trained it; README.md is its model card."""

from importlib.resources import as_file, files

from jaxviz.keras import KerasModel, load_keras


def mnist_cnn() -> KerasModel:
    """Load the bundled network: (N, 28, 28, 1) in [0, 1], white on black -> (N, 10) probabilities.

    Returns:
        The model, a `flax.nnx.Module` with layers "conv2d", "conv2d_1", … "preds".

    Example:
        >>> mnist_cnn().output_shape
        (10,)
    """
    with as_file(files("jaxviz.models") / "mnist_cnn.keras") as path:
        return load_keras(path)
