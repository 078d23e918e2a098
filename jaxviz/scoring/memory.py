"""How many rows of a batch fit: XLA's own analysis of the compiled program against a budget."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import psutil

OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# The files of a group, in the first and the second version of control groups.
LIMITS_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
LIMITS_2 = ("memory.max", "memory.current", "inactive_file")
SHARE = 0.25  # of the memory that is free when the program is compiled


def memory_budget(device: Any = None) -> int:
    """Return the bytes that a run may take by default: a quarter of what is free.

    Args:
        device: an accelerator is asked for its own free memory; for a CPU, or a device that does
            not tell, it is the machine's. None: the default device.

    Returns:
        The budget in bytes.
    """
    device = jax.local_devices()[0] if device is None else device
    stats: dict[str, int] = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    return int(SHARE * _free_memory())


def _free_memory() -> int:
    """Bytes that can be had without swapping, and within what a container or a job may take."""
    return min(psutil.virtual_memory().available, *_free_in_groups(), 2**63)


def _free_in_groups() -> Iterator[int]:
    """What is left of the limits of the control groups, of Linux, that this process is in."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        root, names = (GROUPS / "memory", LIMITS_1) if kinds else (GROUPS, LIMITS_2)
        # Those around it limit it as well; in a container, which may not see them, the root is its.
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            with suppress(OSError, ValueError, KeyError):  # no limit, or none that is told
                yield _free_in(root / group.relative_to("/"), *names)


def _free_in(group: Path, limit: str, used: str, reclaimed: str) -> int:
    most, now = (int((group / name).read_text(encoding="utf-8")) for name in (limit, used))
    stat = (group / "memory.stat").read_text(encoding="utf-8")
    # Files that were read count as used, but give way.
    cached = int(dict(line.split() for line in stat.splitlines())[reclaimed])
    return max(0, most - now + cached)


def held_bytes(traced: Any, compiled: Any) -> int:
    """Return the bytes that a program takes between calls: its code and its constants.

    Args:
        traced: what it was lowered from, which knows the arrays that the function closes over.
        compiled: the program. Its temporary arrays and arguments are no one's between calls.
    """
    constants = sum(getattr(constant, "nbytes", 0) for constant in traced.jaxpr.consts)
    analysis = compiled.memory_analysis()
    return constants + (0 if analysis is None else int(analysis.generated_code_size_in_bytes))
