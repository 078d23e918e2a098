"""Systems without fcntl, resource and /proc, whose console knows cp1252: as far as jaxviz sees."""

import os
import subprocess
import sys

PROGRAM = r"""
import builtins, io, os, pkgutil, sys, time
from importlib import import_module

imported, opened = builtins.__import__, io.open
UNKNOWN = {"fcntl", "resource", "pwd", "grp", "termios"}

def asks():  # who is behind a call: the first frame that is no library's
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__", "").split(".")[0] in ("pathlib", "io", "contextlib"):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "").startswith("jaxviz")

def unknown(name, *others, **more):
    if name in UNKNOWN and asks():
        raise ModuleNotFoundError(name)
    return imported(name, *others, **more)

def missing(path, *others, **more):
    if str(path).startswith(("/proc", "/sys")) and asks():
        raise FileNotFoundError(path)
    return opened(path, *others, **more)

builtins.__import__, builtins.open, io.open = unknown, missing, missing
import jaxviz
for module in pkgutil.walk_packages(jaxviz.__path__, "jaxviz."):
    if not module.name.endswith(("__main__", "train_mnist_cnn")):
        import_module(module.name)
from jaxviz.bench.meters import PeakMemory, machine
from jaxviz.cli.main import main
from jaxviz.scoring.memory import memory_budget

for name in ("sysconf", "getloadavg", "geteuid"):
    delattr(os, name)
os.chdir(sys.argv[1])
assert memory_budget() > 2**20 and machine()["memory_gb"] > 0
with PeakMemory() as peak:
    pass
for line in (
    "inspect bundled",
    "occlude bundled digits --limit 2 --patch 14 --out out",
    "occlude bundled digits --limit 2 --patch 14 --store out.zarr",
    "status out.zarr",
    "status out.zarr --json",
    "export out.zarr --npz maps",
):
    assert main(line.split()) == 0, line
"""


def test_everything_is_imported_and_the_commands_work(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="cp1252")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 of 2 done" in done.stdout and "input x" in done.stdout
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out", "out.zarr", "maps"}
