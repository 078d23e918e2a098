"""Who a run is: every array at every depth counts; what is printed, and where to, does not."""

import json
import os
import pty
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback
from scale_run import ROOT, events, files, images, scorer, start

from jaxviz.perturbation import fills
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.identity import fingerprint
from jaxviz.scale.reader import open_store

IMAGES = jax.ShapeDtypeStruct((2, 6, 6, 1), np.float32)
SETTINGS = {"patch": 4, "stride": 2, "chunk": 4, "progress": False}


@jax.custom_jvp
def _own(x, weights):
    return x * weights


_own.defjvps(lambda t, *_: t, None)

# The weights are closed over inside each of these.
DEPTHS = {
    "top": lambda w: lambda x: x * w,
    "jit": lambda w: jax.jit(lambda x: x * w),
    "jit in jit": lambda w: jax.jit(lambda x: jax.jit(lambda x: x * w)(x) + 1),
    "scan": lambda w: lambda x: lax.scan(lambda c, _: (c * w, None), x, None, length=2)[0],
    "jit in scan": lambda w: (
        lambda x: lax.scan(lambda c, _: (jax.jit(lambda c: c * w)(c), None), x, None, length=2)[0]
    ),
    "cond": lambda w: lambda x: lax.cond(x.sum() > 0, lambda x: x * w, lambda x: x, x),
    "while": lambda w: lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c * w, x),
    "remat": lambda w: jax.checkpoint(lambda x: x * w),
    "own derivative": lambda w: jax.jit(lambda x: _own(x, w)),
    "vmap of jit": lambda w: jax.vmap(jax.jit(lambda x: x * w[0])),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_arrays_count_at_every_depth(depth):
    one, two = (np.full((1, 6, 6, 1), value, np.float32) for value in (1.5, 2.5))
    of = [fingerprint(DEPTHS[depth](jnp.asarray(w)), IMAGES) for w in (one, one.copy(), two)]
    assert of[0] == of[1] != of[2]


def _told(x, told):
    if told:
        jax.debug.print("the mean is {}", x.mean())
        jax.debug.callback(lambda x: None, x.sum() + jnp.arange(3.0)[1])
    return x * 2


TELLING = {
    "top": lambda told: lambda x: _told(x, told),
    "jit": lambda told: jax.jit(lambda x: _told(x, told)),
    "scan": lambda told: (
        lambda x: lax.scan(lambda c, _: (_told(c, told), None), x, None, length=2)[0]
    ),
    "cond": lambda told: lambda x: lax.cond(x.sum() > 0, lambda x: _told(x, told), lambda x: x, x),
    "while": lambda told: (
        lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: _told(c, told), x)
    ),
    "scan in scan": lambda told: (
        lambda x: lax.scan(lambda c, _: (TELLING["scan"](told)(c), None), x, None, length=2)[0]
    ),
}


@pytest.mark.parametrize("place", TELLING)
def test_what_is_printed_for_debugging_does_not_count(place):
    of = [fingerprint(TELLING[place](told), IMAGES) for told in (True, False)]
    assert of[0] == of[1] != fingerprint(lambda x: TELLING[place](False)(x) + 1, IMAGES)


@pytest.mark.slow
def test_a_model_closed_over_inside_jit_is_not_taken_for_another(tmp_path):
    """Two models of one structure: the weights alone are different."""

    def model(seed):
        weights = jnp.asarray(np.random.default_rng(seed).normal(size=(120, 5)), jnp.float32)
        return jax.jit(lambda x: jax.nn.softmax(x.reshape(x.shape[0], -1) @ weights))

    store = tmp_path / "out.zarr"
    occlude_dataset(model(0), images(8), store, share=(0, 2), **SETTINGS)
    with pytest.raises(ValueError, match=r"model.fingerprint is \w+… there and \w+… now"):
        occlude_dataset(model(1), images(8), store, **SETTINGS)
    assert open_store(store).done.tolist() == [True] * 4 + [False] * 4
    assert occlude_dataset(model(0), images(8), store, **SETTINGS).done.all()


CALLS = {
    "pure_callback": lambda x: jax.pure_callback(
        lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential"
    ),
    "io_callback": lambda x: (io_callback(lambda x: None, None, x), x)[1],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("depth", ["top", "scan"])
def test_calls_back_into_python_are_refused_with_the_reason(tmp_path, kind, depth):
    def f(x):
        call = CALLS[kind]
        x = call(x) if depth == "top" else lax.scan(lambda c, _: (call(c), None), x, length=1)[0]
        return x.mean((1, 2))

    message = f"must not call back into Python .* whether it is the same .*there is a {kind} in it"
    with pytest.raises(ValueError, match=message):
        occlude_dataset(f, images(4), tmp_path / "out.zarr", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_fill_that_calls_back_is_refused(tmp_path):
    fill = fills.function(lambda under, start: CALLS["pure_callback"](under))
    with pytest.raises(ValueError, match="`f` and `fill` must not call back into Python"):
        occlude_dataset(scorer(), images(4), tmp_path / "out.zarr", fill=fill, **SETTINGS)


@pytest.mark.slow
def test_a_run_that_prints_goes_on_as_one_that_does_not(tmp_path, capfd):
    def f(told):
        def score(x):
            if told:
                jax.debug.print("mean {}", x.mean())
            return x.mean((1, 2))

        return score

    store = tmp_path / "out.zarr"
    occlude_dataset(f(True), images(8), store, share=(0, 2), **SETTINGS)
    assert "mean 0." in capfd.readouterr().out
    stored = occlude_dataset(f(False), images(8), store, **SETTINGS)
    whole = occlude_dataset(f(False), images(8), tmp_path / "whole.zarr", **SETTINGS)
    np.testing.assert_array_equal(stored[:].scores, whole[:].scores)


PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jaxviz.scale.identity import fingerprint
w = jnp.arange(36.0).reshape(6, 6, 1)
x = jax.ShapeDtypeStruct((2, 6, 6, 1), "float32")
print(fingerprint(jax.jit(lambda x: jnp.tanh(x * w)), x))
print(str(jax.make_jaxpr(jnp.tanh)(1.0)).encode())
"""


def _under_a_terminal(command, **options):
    """Run a command whose stdout and stderr are a terminal; return its status and its words."""
    ours, theirs = pty.openpty()
    options["env"] = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    options["env"].pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, **options) as process:
        os.close(theirs)
        told = b""
        try:
            while part := os.read(ours, 4096):
                told += part
        except OSError:  # Linux tells the end so
            pass
        os.close(ours)
        return process.wait(), told.decode()


@pytest.mark.slow
def test_a_terminal_changes_no_fingerprint():
    status, told = _under_a_terminal([sys.executable, "-c", PROGRAM])
    piped = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert status == 0 and told.split()[0] == piped.split()[0] and len(piped.split()[0]) == 64
    assert "x1b" in told and "x1b" not in piped  # JAX does colour what it prints


@pytest.mark.slow
def test_what_was_begun_in_a_terminal_goes_on_without_one(tmp_path):
    store, helper = tmp_path / "out.zarr", ROOT / "tests" / "helpers" / "scale_run.py"
    options = {"share": [0, 2], "progress": True}
    status, told = _under_a_terminal([sys.executable, helper, store, json.dumps(options)])
    assert status == 0, told
    log = tmp_path / "log"
    assert start(store, log=str(log)).wait() == 0
    assert events(log)[0]["images"] == 8  # two of five chunks were left
    assert start(tmp_path / "whole.zarr").wait() == 0
    assert files(store) == files(tmp_path / "whole.zarr")
