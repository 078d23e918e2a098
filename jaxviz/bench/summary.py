"""A report of `jaxviz bench` for a terminal of 100 columns, and why rows are not there."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, get_args

from jaxviz._choices import Peer
from jaxviz.bench import peers

# Of a report's columns: the heading, and how many letters it takes.
COLUMNS = {
    "model": ("network", 12),
    "side": ("image", 5),
    "grid": ("patch/stride", 12),
    "method": ("method", 11),
    "batch": ("batch", 5),
    "positions/s": ("positions/s", 11),
    "compile s": ("compile s", 9),
    "peak MiB": ("peak MiB", 8),
    "max deviation": ("deviation", 9),
}


def summary(report: dict[str, Any]) -> str:
    """Return a report in lines of 100 columns at most, with the reasons of rows that are missing.

    Args:
        report: as `run_bench` returns it.

    Returns:
        Lines.

    Example:
        >>> rows = [dict.fromkeys(COLUMNS, 1) | {"patch": 4, "stride": 1, "method": "loop"}]
        >>> print(summary({"rows": rows, "missing": ["captum: not installed (torch)"]}))
        network      image patch/stride method      batch positions/s compile s peak MiB deviation
        1                1          4/1 loop            1           1         1        1         1
        no row of captum: not installed (torch)
    """
    lines = [_line({key: name for key, (name, _) in COLUMNS.items()})]
    for row in report["rows"]:
        cells = {key: cell(row.get(key)) for key in COLUMNS}
        lines.append(_line(cells | {"grid": f"{row['patch']}/{row['stride']}"}))
    return "\n".join([*lines, *(f"no row of {why}" for why in report.get("missing", ()))])


def missing(methods: Sequence[str] | None, dtype: str, cheap_only: Sequence[str]) -> list[str]:
    """Return which rows a run leaves out, and why.

    Args:
        methods: those asked for; None: all.
        dtype: of the forward pass.
        cheap_only: networks on which neither "approximate" nor other libraries are measured.
    """
    told = []
    others = [name for name in get_args(Peer) if methods is None or name in methods]
    if dtype != "float32" and others:
        told.append(f"{', '.join(others)}: they run in float32 only")
        others = []
    for name in others:
        lacking = [need for need in peers.PEERS[name][0] if not find_spec(need)]
        if lacking:
            told.append(f"{name}: not installed ({', '.join(lacking)})")
    costly = ["approximate"] if methods is None or "approximate" in methods else []
    costly += ["other libraries"] * bool(others)
    if cheap_only and costly:
        told.append(f"{' and '.join(costly)} on {', '.join(cheap_only)}: left out by --quick")
    return told


def cell(value: Any) -> str:
    """Return a value of a row, as it is printed."""
    if value is None:
        return "not told"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _line(cells: dict[str, str]) -> str:
    left = ("model", "method")
    parts = [
        cells[key].ljust(width) if key in left else cells[key].rjust(width)
        for key, (_, width) in COLUMNS.items()
    ]
    return " ".join(parts).rstrip()
