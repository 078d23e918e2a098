"""Make Markdown of the results: `python -m benchmarks.render [FILE …]`.

Writes, between the lines `<!-- benchmarks -->` and `<!-- /benchmarks -->` of each file (default:
benchmarks/README.md), every result with its table; in a file outside benchmarks/, one line a claim.
The newest result of each benchmark counts.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
Result = dict[str, Any]


def load_results(folder: Path = FOLDER / "results") -> list[Result]:
    """Return the newest result of each benchmark, by name; one that is partial does not count."""
    newest: dict[str, Result] = {}
    for path in folder.glob("*.json"):
        result = json.loads(path.read_text())
        if result.get("partial"):
            continue
        known = newest.get(result["name"])
        if known is None or known["date"] <= result["date"]:
            newest[result["name"]] = result
    return [newest[name] for name in sorted(newest)]


def kept_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of the newest result of a benchmark; none if there is none."""
    return next((result["rows"] for result in load_results() if result["name"] == name), [])


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a Markdown table; columns are the keys, in the order they first come up."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {c for c in columns if all(isinstance(r.get(c) or 0, int | float) for r in rows)}
    head = "| " + " | ".join(columns) + " |"
    rule = "|" + "|".join("---:" if c in numeric else "---" for c in columns) + "|"
    body = ["| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join([head, rule, *body])


def cell(value: Any) -> str:
    """Return a value in few digits."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if 0.99 <= value < 1:
            return f"{value:.5f}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def full(results: Sequence[Result]) -> str:
    """Return every result: claim, headline, table, notes, machine and versions."""
    return "\n\n".join(_section(result) for result in results)


def _section(result: Result) -> str:
    quick = " A quick run: figures are rough." if result["quick"] else ""
    parts = [
        f"### {result['name']}",
        f"{result['claim']}",
        f"**{result['headline']}**{quick}",
        markdown_table(result["rows"]),
        "\n".join(f"- {note}" for note in result["notes"]),
        _where(result),
    ]
    return "\n\n".join(part for part in parts if part)


def _where(result: Result) -> str:
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{result['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
        f" load average {machine['load_average']} at the end; {packages}."
    )


def short(results: Sequence[Result]) -> str:
    """Return one table row per result."""
    rows = [
        {"claim": f"`{r['name']}`", "measured": r["headline"], "on": _device(r)} for r in results
    ]
    return markdown_table(rows)


def _device(result: Result) -> str:
    machine = result["machine"]
    if machine["device"].lower() == "cpu":
        return f"{machine['cores']} cores of {machine['cpu']}"
    return machine["device"]


def replace_between(text: str, block: str) -> str:
    """Return `text` with what lies between the two markers replaced.

    Raises:
      ValueError: the markers are not there, once each, in this order.
    """
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"the text must hold {BEGIN} and, further on, {END}.")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the tables of the named files; return the exit status."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("files", nargs="*", type=Path, default=[FOLDER / "README.md"])
    results = load_results()
    for path in parser.parse_args(argv).files:
        block = full(results) if path.resolve().parent == FOLDER.resolve() else short(results)
        path.write_text(replace_between(path.read_text(), block))
    return 0


if __name__ == "__main__":
    sys.exit(main())
