"""What `metrics_equal_their_peers` compares: a network, images, maps, and a case."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import networks

WITHIN = 1e-5
SIDE, STEPS, CLASSES, COUNT = 20, 20, 10, 4
KEY = jax.random.key(7)
Both = tuple[Any, Any]


class Setting(NamedTuple):
    """A network, images (N, H, W, C) in [0, 1], the classes explained, and maps (N, H, W)."""

    network: networks.Network
    images: np.ndarray
    classes: np.ndarray
    maps: np.ndarray

    @property
    def ours(self) -> Any:
        """The network in JAX."""
        return networks.in_jax(self.network)

    @property
    def in_torch(self) -> Any:
        """The network in PyTorch."""
        return networks.in_torch(self.network)

    @property
    def in_keras(self) -> Any:
        """The network in Keras."""
        return networks.in_keras(self.network, self.images.shape[1:])

    @property
    def one_hot(self) -> np.ndarray:
        """The classes as rows."""
        return np.eye(self.network[-1].bias.size, dtype=np.float32)[self.classes]  # pyright: ignore


class Case(NamedTuple):
    """What is compared.

    Attributes:
      metric: ours, by name.
      peer: whose.
      case: what is run.
      run: () -> (ours, theirs), arrays of the same shape.
      finding: what the peer does instead; None: both must agree.
      within: how closely, as a share of max |theirs|.
    """

    metric: str
    peer: str
    case: str
    run: Callable[[], Both]
    finding: str | None = None
    within: float = WITHIN


@cache
def setting(channels: int = 1, side: int = SIDE, classes: int = CLASSES) -> Setting:
    """Draw the network, the images and the maps."""
    shape = (side, side, channels)
    network = networks.make_network(shape, ((8,), (16,)), (classes,))
    rng = np.random.default_rng(1)
    images = rng.random((COUNT, *shape), np.float32)
    best = np.asarray(networks.in_jax(network)(images)).argmax(-1)
    return Setting(network, images, best, rng.standard_normal(images.shape[:3], np.float32))
