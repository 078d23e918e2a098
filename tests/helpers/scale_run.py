"""One run over many images in a process of its own, which tests kill, interrupt and starve.

Usage: python scale_run.py STORE [JSON]; the JSON holds options of `occlude_dataset`, and

  n         images, in all
  gate      [image, file]: images from this one on are read once the file is there
  die_at    the process kills itself at this write of an array (counted from 0)
  die_making  … or at this array while the store is made
  slow_trace  file: the scorer is traced once it is there; FILE.reached tells that it waits
  judge     true: judge maps by metrics instead, and not `occlude_dataset` but `judge_dataset`
  attribute true: explain by two methods instead, by `attribute_dataset`
  hosts     [coordinator, processes, process]: join a `jax.distributed` cluster first
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

SHAPE = (12, 10, 1)


def wait_for(path, process=None):
    """Wait for a file, however long it takes, unless the process that makes it has ended."""
    while not Path(path).exists():
        assert process is None or process.poll() is None, f"{path} did not come"
        time.sleep(0.01)


class Gated:
    """Images of which the later ones are read once a file is there."""

    def __init__(self, images, first, file):
        self.images, self.first, self.file = images, first, file

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index >= self.first and threading.current_thread() is not threading.main_thread():
            wait_for(self.file)
        return self.images[index]


def images(n):
    return np.random.default_rng(0).random((n, *SHAPE), np.float32)


def network(kernel, dense, x):
    """One convolution and a softmax."""
    dims = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)
    return jax.nn.softmax(jax.nn.relu(y).reshape(y.shape[0], -1) @ dense)


def scorer(scale=1.0):
    """A small network with weights as arguments."""
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 1, 8)).astype(np.float32)
    dense = scale * rng.normal(size=(12 * 10 * 8, 5)).astype(np.float32)
    return Partial(network, jnp.asarray(kernel), jnp.asarray(dense))


def pixels(f, images, *, target):
    """Maps that are the images, of the target's sign."""
    return images[..., 0] * np.where(target % 2, -1, 1)[:, None, None]


def judge(f, source, store, **options):
    """Judge maps of an array and of a function by two metrics that draw at random."""
    from jaxviz.metrics import mu_fidelity, srg
    from jaxviz.scale.judge import judge_dataset

    array = np.random.default_rng(2).normal(size=(20, *SHAPE[:2]))
    metrics = {
        "srg": partial(srg, steps=3, fill=0.0),
        "fidelity": partial(mu_fidelity, grid=3, samples=5),
    }
    settings = {"maps": {"noise": array, "pixels": pixels}, "metrics": metrics, "chunk": 4}
    return judge_dataset(f, source, store, **{**settings, "progress": False, **options})


def attribute(f, source, store, **options):
    """Explain by a method with a gap of its sum, and by one that draws at random."""
    from jaxviz.attribution import integrated_gradients, rise
    from jaxviz.scale.attribute import attribute_dataset

    methods = {
        "ig": partial(integrated_gradients, points=4),
        "rise": partial(rise, samples=10, cells=3),
    }
    settings = {"methods": methods, "chunk": 4, "progress": False}
    return attribute_dataset(f, source, store, **{**settings, **options})


def waiting(f, file):
    """The scorer, whose first trace waits for a file; the same function otherwise."""

    def call(*arguments):
        Path(f"{file}.reached").touch()
        wait_for(file)
        return f.func(*arguments)

    return Partial(call, *f.args)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(owner, name, count):
    """Let the process kill itself when `owner.name` is called for the count-th time."""
    calls, original = iter(range(10**9)), getattr(owner, name)

    def call(*args, **kwargs):
        if next(calls) == count:
            die()
        return original(*args, **kwargs)

    setattr(owner, name, call)


ROOT = Path(__file__).resolve().parents[2]
HELPERS = Path(__file__).resolve().parent


def start(store, **options):
    """Start a run in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, __file__, store, json.dumps(options)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def files(store):
    """Every file of a store, by its path."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file()
    }


def events(log):
    """The lines of a log."""
    return [json.loads(line) for line in Path(log).read_text().splitlines()]


def main(store, options):
    from jaxviz.scale import store as module
    from jaxviz.scale.dataset import occlude_dataset

    if hosts := options.pop("hosts", None):
        jax.distributed.initialize(*hosts, initialization_timeout=3600)
    if (count := options.pop("die_at", None)) is not None:
        kill_at(module.Store, "_put", count)
    if (count := options.pop("die_making", None)) is not None:
        kill_at(module, "_metadata", count)
    source = images(options.pop("n", 20))
    if gate := options.pop("gate", None):
        source = Gated(source, *gate)
    f = scorer()
    if file := options.pop("slow_trace", None):
        f = waiting(f, file)
    if options.pop("judge", False):
        judge(f, source, store, **options)
        return
    if options.pop("attribute", False):
        attribute(f, source, store, **options)
        return
    settings = {"patch": 4, "stride": 2, "chunk": 4, "progress": False, **options}
    occlude_dataset(f, source, store, **settings)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's &
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
