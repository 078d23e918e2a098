"""Imports point one way, by the source alone; and what is only asked for help does not load JAX."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jaxviz"

# A room may import rooms of lower floors; those of one floor do not know each other.
FLOORS = {
    "jaxpr": 0,
    "incremental": 1,
    "perturbation": 1,
    "scoring": 2,
    "occlusion": 3,
    "layers": 3,
    "attribution": 4,
    "metrics": 4,
    "network": 4,
    "maximization": 4,
    "scale": 5,
    "saved": 5,
    "keras_vis": 6,
    "bench": 6,
    "cli": 7,
    "__main__": 8,
}
# Rooms beside the floors, and all that each may import besides itself.
SHARED = {"_arguments", "_choices", "_files", "_names", "_version", "_versions"}
ASIDE = {
    **dict.fromkeys(SHARED, SHARED),
    "": {"_version"},
    "keras": {"_files", "_names", "_version"},
    "progress": SHARED,
    "datasets": {*SHARED, "images"},
    "images": {*SHARED, "datasets"},
    "models": {*SHARED, "keras", "datasets", "images"},
    "plot": {
        *SHARED,
        "viewer",
        "network",
        "images",
        "jaxpr",
        "incremental",
        "perturbation",
        "scoring",
    },
    "viewer": {*SHARED, "plot", "images", "jaxpr", "incremental", "perturbation", "scoring"},
}
# Rooms beside the floors that any floor may import; pictures only inside functions.
OPEN = {*SHARED, "keras", "progress", "datasets", "images", "models"}
PICTURES = {"plot", "viewer"}
PICTURES_FROM = FLOORS["keras_vis"]

RIM = ("plot", "viewer", "images", "progress", "occlusion.storage", "cli", "bench")
RIM_LIBRARIES = {"matplotlib", "PIL", "rich"}


class Import(NamedTuple):
    """One import: dotted names; deferred inside a function, or where only type checkers look."""

    importer: str
    imported: str
    line: int
    deferred: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules_in(package: Path) -> dict[str, Path]:
    """The dotted name of every module."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_in(package: Path) -> list[Import]:
    """Every import of every module: of the package's own ones, the modules that hold the names."""
    modules = modules_in(package)
    found = []
    for name, path in modules.items():
        base = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for target, line, deferred in _read(ast.parse(path.read_text()), base, False):
            found.append(Import(name, _module(target, modules), line, deferred))
    return found


def _read(node: ast.AST, base: str, deferred: bool) -> Iterator[tuple[str, int, bool]]:
    """Yield what is imported below a node; `base` is what relative imports start from."""
    for child in ast.iter_child_nodes(node):
        later = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            later = True
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parent = base.split(".")[: len(base.split(".")) - child.level + 1]
            stem = ".".join([*(parent if child.level else []), *filter(None, [child.module])])
            yield from ((f"{stem}.{a.name}", child.lineno, deferred) for a in child.names)
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            names = [a.value for a in child.args if isinstance(a, ast.Constant)]
            yield from ((str(name), child.lineno, deferred) for name in names)
        yield from _read(child, base, later)


def _module(target: str, modules: Mapping[str, Path]) -> str:
    """The module of the package that a dotted name lies in; other libraries as they stand."""
    name = target
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or target


def room(module: str) -> str:
    """The package or module right below the root; "" is the root itself."""
    return (module.split(".") + [""])[1]


def upward(found: list[Import], root: str) -> list[str]:
    """Imports of the package's own rooms that the order does not allow."""
    inside = [i for i in found if i.imported.split(".")[0] == root]
    return [str(i) for i in inside if not _allowed(i, room(i.importer), room(i.imported))]


def _allowed(found: Import, importer: str, imported: str) -> bool:
    if importer == "" and found.deferred:
        return True  # the re-exports, on first use
    if importer == imported:
        return True
    if importer in ASIDE:
        return imported in ASIDE[importer]
    if importer not in FLOORS:
        return False
    if imported in PICTURES:
        return found.deferred or FLOORS[importer] >= PICTURES_FROM
    if imported in OPEN:
        return True
    return imported in FLOORS and FLOORS[imported] < FLOORS[importer]


def circle(found: list[Import], modules: Mapping[str, Path]) -> list[str]:
    """One circle of modules, if there is any; an import also runs the packages around its aim."""
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for i in found:
        if i.imported not in modules or i.deferred:
            continue
        parts = i.imported.split(".")
        around = {".".join(parts[:n]) for n in range(1, len(parts))}
        running = {n for n in around if f"{i.importer}.".startswith(f"{n}.")}
        graph[i.importer] |= {i.imported, *around} - running - {i.importer}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def pictures_off_the_rim(found: list[Import], root: str) -> list[str]:
    """Imports of drawing and printing libraries by modules that are not the rim."""
    rim = tuple(f"{root}.{name}." for name in RIM)
    drawn = [i for i in found if i.imported.split(".")[0] in RIM_LIBRARIES]
    return [str(i) for i in drawn if not f"{i.importer}.".startswith(rim)]


@pytest.fixture(scope="module")
def found():
    """Every import of the package."""
    return imports_in(PACKAGE)


@pytest.mark.slow
def test_nothing_imports_upward(found):
    assert len(found) > 500
    assert upward(found, "jaxviz") == []


def test_every_room_has_its_place():
    rooms = {room(name) for name in modules_in(PACKAGE)}
    assert rooms <= {*FLOORS, *ASIDE}


@pytest.mark.slow
def test_no_circles_between_modules(found):
    assert circle(found, modules_in(PACKAGE)) == []


def test_only_the_rim_draws_and_prints(found):
    assert pictures_off_the_rim(found, "jaxviz") == []


@pytest.fixture
def made_up(tmp_path):
    """Write modules, source by file name without its ending, into a package called `made`."""

    def write(sources: dict[str, str]) -> Path:
        package = tmp_path / "made"
        for name, source in {"__init__": "", **sources}.items():
            path = package / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return package

    return write


@pytest.mark.parametrize(
    ("modules", "told"),
    [
        ({"jaxpr/walk": "from made.scoring import task"}, "made.jaxpr.walk:1 imports"),
        ({"jaxpr/walk": "def f():\n    import made.scoring.task"}, "made.jaxpr.walk:2 imports"),
        ({"jaxpr/walk": "from ..scoring import task"}, "made.jaxpr.walk:1 imports"),
        ({"occlusion/result": "from made import layers"}, "made.occlusion.result:1 imports"),
        ({"occlusion/result": "from made.plot import heatmap"}, "imports made.plot"),
        ({"plot": "from made.occlusion.result import Occlusion"}, "imports made.occlusion.result"),
        ({"keras/load": "import made._arguments"}, "imports made._arguments"),
        ({"_files": "from made import progress"}, "imports made.progress"),
        ({"progress": "def f():\n    from made.layers import tag"}, "made.progress:2 imports"),
        ({"scoring/task": "from made import heatmap"}, "made.scoring.task:1 imports made"),
        ({"scoring/task": "import_module('made.occlusion.result')"}, "made.scoring.task:1"),
        ({"attic": "import made.scoring.task"}, "made.attic:1 imports made.scoring.task"),
    ],
)
def test_an_upward_import_is_told(made_up, modules, told):
    others = ["scoring/task", "layers", "plot", "occlusion/result", "_arguments", "progress"]
    (said,) = upward(imports_in(made_up({**dict.fromkeys(others, ""), **modules})), "made")
    assert told in said


def test_imports_that_the_order_allows_pass(made_up):
    package = made_up(
        {
            **dict.fromkeys(["_arguments", "jaxpr/walk", "progress", "plot"], ""),
            "scoring/task": "import made._arguments, made.jaxpr.walk\nfrom made import progress",
            "occlusion/result": "def save():\n    from made.plot import heatmap",
            "cli/main": "import made.plot\nfrom made.occlusion import result",
        }
    )
    assert upward(imports_in(package), "made") == []
    assert circle(imports_in(package), modules_in(package)) == []


def test_a_circle_is_told(made_up):
    package = made_up(
        {
            "scale/run": "from made.scale import store",
            "scale/store": "from made.scale.lock import hold",
            "scale/lock": "import made.scale.run",
        }
    )
    found = circle(imports_in(package), modules_in(package))
    assert set(found) == {"made.scale.run", "made.scale.store", "made.scale.lock"}


def test_a_circle_through_a_package_is_told(made_up):
    package = made_up(
        {
            "keras/__init__": "from made.progress import bar",
            "keras/load": "",
            "progress": "from made.keras.load import load",
        }
    )
    found = circle(imports_in(package), modules_in(package))
    assert set(found) == {"made.keras", "made.progress"}


@pytest.mark.parametrize(
    "deferred",
    [
        "def read():\n    import made.scale.run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import made.scale.run",
    ],
)
def test_an_import_on_use_closes_no_circle(made_up, deferred):
    package = made_up({"scale/run": "from made.scale import store", "scale/store": deferred})
    assert circle(imports_in(package), modules_in(package)) == []


@pytest.mark.parametrize(
    "source",
    ["from PIL import Image", "def show():\n    from rich.console import Console",
     "import matplotlib.pyplot as plt", "x = importlib.import_module('matplotlib')"],
)  # fmt: skip
def test_a_drawing_library_off_the_rim_is_told(made_up, source):
    files = ["scale/report", "occlusion/storage", "cli/output", "plot"]
    (said,) = pictures_off_the_rim(imports_in(made_up(dict.fromkeys(files, source))), "made")
    assert said.startswith("made.scale.report:")


def _loads_jax(*command: str) -> bool:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True
    )
    return re.search(r"\| +jax$", run.stderr, re.MULTILINE) is not None


@pytest.mark.parametrize(
    "command",
    [("-c", "import jaxviz"), ("-m", "jaxviz", "--version"), ("-m", "jaxviz", "--help")],
    ids=" ".join,
)
def test_it_does_not_load_jax(command):
    assert not _loads_jax(*command)


@pytest.mark.slow
def test_what_is_used_loads_jax():
    assert _loads_jax("-c", "import jaxviz; jaxviz.occlusion_scores")
