"""How the benchmarks call libraries that judge and make heatmaps: images, models, and quirks."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import importlib
import io
import logging
import warnings
from typing import Any

import numpy as np

THREADS = 2


def quiet() -> None:
    """Keep TensorFlow and the peers from telling what does not matter."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for category in (UserWarning, DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)


def threads() -> None:
    """Let PyTorch and TensorFlow compute on as many threads as XLA has here."""
    import tensorflow as tf
    import torch

    torch.set_num_threads(THREADS)
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


def import_torch_peer(name: str) -> Any:
    """Import a library that imports torchvision, of which nothing is used but transforms.

    The wheels of torchvision on the package index are built for CUDA: with a PyTorch for CPUs their
    operators are missing, and the import ends with an error about two of them. These get a name
    here, and no more.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(f"{operator}{signature}")
        _KEPT.append(library)
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(name)


_KEPT: list[Any] = []  # a library of operators lives as long as its object


def to_torch(images: np.ndarray) -> Any:
    """Return images (N, H, W, C) as a tensor (N, C, H, W)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(channels_first(images)))


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W, C) as (N, C, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


class GivenMaps:
    """A "CAM extractor" for torch-cam's metrics that gives maps (N, H, W) made elsewhere.

    Attributes:
        model: torch module.
        maps: tensor (N, H, W).
    """

    def __init__(self, model: Any, maps: np.ndarray) -> None:
        import torch

        self.model, self.maps = model, torch.from_numpy(np.asarray(maps, np.float32))

    def __call__(self, class_idx: Any = None, scores: Any = None, **_: Any) -> list[Any]:
        """Return the maps, whatever the class."""
        return [self.maps]

    def fuse_cams(self, cams: list[Any]) -> Any:
        """Return the only map."""
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()
