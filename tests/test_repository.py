"""The repository itself: bare notebooks, a layout that is told truly, no stray paths."""

import json
import re
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from jaxviz._version import __version__

ROOT = Path(__file__).resolve().parent.parent


def _listed() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def _files(*suffixes: str) -> list[Path]:
    files = [ROOT / line for line in _listed()]
    return [file for file in files if file.suffix in suffixes and file.exists()]


def test_nothing_lies_about():
    folders = {line.partition("/")[0] for line in _listed() if "/" in line}
    known = {"jaxviz", "tests", "benchmarks", "notebooks", "docs", "examples", ".ci", ".github"}
    assert folders == known
    assert not [line for line in _listed() if "zarr.json" in line or line.endswith(".npz")]


def test_notebooks_carry_no_outputs():
    for notebook in _files(".ipynb"):
        for cell in json.loads(notebook.read_text())["cells"]:
            assert not cell.get("outputs") and not cell.get("execution_count"), notebook.name


def test_no_file_names_this_machine():
    stray = re.compile(r"(?<![\w.])/(work|home|root)/\w")
    for file in _files(".py", ".md", ".toml", ".json", ".ipynb", ".txt", ".yaml", ".cff"):
        if file.name != "test_repository.py":
            found = stray.search(file.read_text())
            assert found is None, f"{file.relative_to(ROOT)}: {found}"


def _layout() -> str:
    return (ROOT / "docs" / "architecture.md").read_text().split("```text\n")[1].split("```")[0]


def _packages(folder: Path) -> set[str]:
    return {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}


def test_the_layout_in_the_documentation_is_true():
    rooms, inside, package = set(), {}, ""
    for indent, name in re.findall(r"^(  |    )(\w+(?:\.py|/))", _layout(), re.MULTILINE):
        if len(indent) == 2:
            package = name
            rooms.add(name)
        else:
            inside.setdefault(package, set()).add(name)
    modules = {path.name for path in (ROOT / "jaxviz").glob("*.py") if path.name[0] != "_"}
    assert rooms == modules | _packages(ROOT / "jaxviz")
    assert inside["keras/"]
    for package, packages in inside.items():
        assert packages == _packages(ROOT / "jaxviz" / package), package


def test_the_folders_beside_the_package_exist():
    beside = re.findall(r"^([\w/]+/)", _layout(), re.MULTILINE)
    assert {"jaxviz/", "tests/", "docs/decisions/"} <= set(beside)
    assert [name for name in beside if not (ROOT / name).is_dir()] == []


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "decisions"
    pages = {path.name for path in folder.glob("*.md")} - {"README.md"}
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (folder / "README.md").read_text()))
    assert len(pages) >= 4
    assert pages <= listed


def test_the_readme_names_only_make_targets_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= named <= targets


def test_contributors_are_told_make_targets_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)|`make ([a-z-]+)`",
                           (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))  # fmt: skip
    assert {"test", "test-all", "check"} <= {a or b for a, b in named} <= targets


def test_contributors_are_told_files_that_exist():
    told = set(re.findall(r"`((?:jaxviz|tests|docs|benchmarks|\.ci)/[\w./]+)`",
                          (ROOT / "CONTRIBUTING.md").read_text()))  # fmt: skip
    planned = {"jaxviz/attribution/", "tests/attribution/"}
    assert len(told) > 10
    assert [name for name in told - planned if not (ROOT / name).exists()] == []


def test_the_citation_has_the_version():
    cited = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == [__version__]


def test_hooks_fetch_nothing():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
    assert set(re.findall(r"language: (\S+)", hooks)) == {"system"}


def test_types_are_shipped():
    with (ROOT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data["jaxviz"]
    assert (files("jaxviz") / "py.typed").is_file()
