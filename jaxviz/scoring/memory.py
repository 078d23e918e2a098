"""How many rows of a batch fit: XLA's own analysis of the compiled program against a budget."""

import os
from typing import Any

import jax

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
    """Bytes of the machine's memory that can be had without swapping."""
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return max(pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else 0, 2 * 1024**3)


def program_bytes(compiled: Any) -> int:
    """Return the bytes that one call of a compiled program adds to its arguments (0: not told)."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)


def held_bytes(traced: Any, compiled: Any) -> int:
    """Return the bytes that a program takes between calls: its code and its constants.

    Args:
        traced: what it was lowered from, which knows the arrays that the function closes over.
        compiled: the program. Its temporary arrays and arguments are no one's between calls.
    """
    constants = sum(getattr(constant, "nbytes", 0) for constant in traced.jaxpr.consts)
    analysis = compiled.memory_analysis()
    return constants + (0 if analysis is None else int(analysis.generated_code_size_in_bytes))
