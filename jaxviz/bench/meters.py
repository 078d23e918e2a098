"""What a measured stretch took besides time: memory and, where the machine tells it, energy.

Nothing here needs a privilege: what the system does not offer is None, "not told".
"""

import ctypes
import gc
import os
import platform
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import psutil

SAMPLED = 0.002  # seconds between two looks at the memory
POWERCAP = Path("/sys/class/powercap")


class PeakMemory:
    """The most memory while the block runs, in bytes.

    For a CPU it is the process's resident memory above what it was before; an accelerator tells
    its own, the most since the process began.
    """

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        with suppress(OSError, AttributeError, TypeError):  # only where the C library is GNU's
            ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not there to be used again
        self.before = self.most = _resident()
        self.ended = threading.Event()
        self.watch = threading.Thread(target=self._sample, daemon=True)
        self.watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.watch.join()
        self.most = max(self.most, _resident())

    @property
    def bytes(self) -> int:
        """How much it was."""
        stats = jax.local_devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use") or self.most - self.before

    def _sample(self) -> None:
        while not self.ended.wait(SAMPLED):
            self.most = max(self.most, _resident())


def _resident() -> int:
    """Bytes of this process that are in memory now."""
    return psutil.Process().memory_info().rss


class Power:
    """Mean watts since it was made, from what the processor or the GPU counts."""

    def __init__(self) -> None:
        self.begin, self.before = time.perf_counter(), joules()

    def watts(self) -> float | None:
        """Return the mean power; None: not told."""
        now = joules()
        if now is None or self.before is None:
            return None
        wrapped = now["counted"] < self.before["counted"]
        used = now["counted"] - self.before["counted"] + now["range"] * wrapped
        return used / (time.perf_counter() - self.begin)


def joules() -> dict[str, float] | None:
    """Return the energy used so far and where its counter starts again (0: never), in joules.

    On GPUs NVML counts, of all that JAX uses; otherwise RAPL, of all processor packages. Both tell
    of all that runs on them. None: there is no counter, or it may not be read.
    """
    devices = jax.local_devices()
    if devices[0].platform == "gpu":
        return _nvml_joules([device.local_hardware_id or 0 for device in devices])
    return _rapl_joules()


def _rapl_joules() -> dict[str, float] | None:
    try:
        packages = [p for p in POWERCAP.iterdir() if re.fullmatch(r"intel-rapl:\d+", p.name)]
        read = [
            [int((package / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")]
            for package in packages
        ]
    except (OSError, ValueError):
        return None
    if not read:
        return None
    counted, span = map(sum, zip(*read, strict=True))
    # Two packages wrap at different moments: then the sum falls by one range, not by both.
    return {"counted": counted / 1e6, "range": span / len(read) / 1e6}


def _nvml_joules(devices: list[int]) -> dict[str, float] | None:
    try:
        nvml: Any = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    total = 0
    for device in devices:
        handle, used = ctypes.c_void_p(), ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetHandleByIndex_v2(device, ctypes.byref(handle)) != 0:
            return None
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used)) != 0:
            return None
        total += used.value
    return {"counted": total / 1e3, "range": 0.0}


def matmul_speed(dtype: str, size: int = 2048) -> float:
    """Return the operations per second of a matrix product on the default device."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    seconds = []
    for _ in range(30):
        begin = time.perf_counter()
        product(x, x).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds)


def machine() -> dict[str, Any]:
    """Describe the machine: no name of it, and no path."""
    device = jax.devices()[0]
    cpu, cores = platform.processor() or platform.machine(), os.cpu_count()
    with suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as lines:
        cpu = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    with suppress(AttributeError):  # those that this process may use; not told by macOS
        cores = len(psutil.Process().cpu_affinity() or ()) or cores
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "system": platform.system(),
        "load_average": round(psutil.getloadavg()[0], 1),
    }
