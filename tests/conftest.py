"""Strict numerics for every test: no silent promotion of dtypes or ranks; warnings are errors."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from jaxviz.jaxpr.cache import clear_caches  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Drop what a module compiled: kept to the end, it takes gigabytes."""
    yield
    clear_caches()
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":  # glibc keeps what was freed unless it is told not to
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real models, MNIST and photographs that JAXVIZ_DATA names."""
    folder = os.environ.get("JAXVIZ_DATA")
    if not folder:
        pytest.skip("JAXVIZ_DATA does not name the folder of test data")
    return Path(folder).resolve()


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(0)


class Compilations:
    """How often XLA compiled since `start`."""

    total = 0

    def start(self) -> None:
        self.before = Compilations.total

    @property
    def count(self) -> int:
        return Compilations.total - self.before


def _count(event: str, duration: float, **_: object) -> None:
    Compilations.total += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture
def compilations() -> Compilations:
    """Counts compilations from its `start` on."""
    counter = Compilations()
    counter.start()
    return counter
