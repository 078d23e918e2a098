"""The repository itself: bare notebooks, a layout that the README tells truly, no stray paths."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _files(*suffixes: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / line for line in listed.stdout.splitlines()]
    return [file for file in files if file.suffix in suffixes and file.exists()]


def test_notebooks_carry_no_outputs():
    for notebook in _files(".ipynb"):
        for cell in json.loads(notebook.read_text())["cells"]:
            assert not cell.get("outputs") and not cell.get("execution_count"), notebook.name


def test_no_file_names_this_machine():
    stray = re.compile(r"(?<![\w.])/(work|home|root)/\w")
    for file in _files(".py", ".md", ".toml", ".json", ".ipynb", ".txt"):
        if file.name != "test_repository.py":
            found = stray.search(file.read_text())
            assert found is None, f"{file.relative_to(ROOT)}: {found}"


def test_the_layout_section_of_the_readme_is_true():
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Layout")[1].split("```")[1]
    told = set(re.findall(r"\b(\w+(?:\.py|/))", section.split("tests/")[0])) - {"jaxviz/"}
    package = [path for path in (ROOT / "jaxviz").iterdir() if not path.name.startswith("_")]
    there = {path.name + "/" * path.is_dir() for path in package if path.suffix in ("", ".py")}
    assert told == there


def test_the_readme_names_only_make_targets_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= named <= targets
