"""What a run is: its model, grid, fill, images, program and versions, so that it is known again.

Two runs with the same identity write the same bits. An identity is a dictionary that JSON can hold.
"""

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from platform import python_version
from typing import Any

import jax
import jaxlib
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxviz._version import __version__
from jaxviz.jaxpr._jax import DEBUG
from jaxviz.jaxpr.content import UnknownContentError, array_content, content
from jaxviz.jaxpr.walk import equations, silent, trace

Identity = dict[str, Any]
# Recorded, but free to differ from one part of a run to the next: keys, or what they begin with.
FREE = (
    "model.name",
    "versions.numpy",
    "versions.python",
    "versions.tensorstore",
    "reading.",
    "class_names",
)


def fingerprint(function: Callable, *arguments: Any) -> str:
    """Return the SHA-256 of what a function computes: its equations, and every array it reads.

    What it prints for debugging does not count.

    Args:
        function: traceable.
        *arguments: pytrees of arrays, which count by value, and of shapes, which count as such.

    Returns:
        64 hexadecimal digits, the same in every process for the same function and versions.

    Raises:
        ValueError: it calls back into Python.

    Example:
        >>> import jax.numpy as jnp
        >>> one, two = (fingerprint(lambda x, n=n: x * n, jnp.ones(3)) for n in (1.0, 2.0))
        >>> one == fingerprint(lambda x: x * 1.0, jnp.ones(3)), one == two
        (True, False)
    """
    traced = trace(function, *arguments, open_derivatives=True)
    try:
        _refuse_callbacks(traced.closed)
        flat, captured = silent(traced)
        parts = [content(flat)]
    except UnknownContentError as error:
        raise ValueError(
            "`f` and `fill` must not call back into Python in a run that can go on later: nobody"
            f" could say whether it is the same function then ({error})"
        ) from error
    read = [*jax.tree.leaves(arguments), *captured]
    parts += [array_content(x) for x in read if not isinstance(x, jax.ShapeDtypeStruct)]
    return sha256("\n".join(parts).encode()).hexdigest()


def _refuse_callbacks(closed: ClosedJaxpr) -> None:
    names = {equation.primitive.name for equation in equations(closed)} - DEBUG
    found = sorted(name for name in names if "callback" in name)
    if found:
        raise UnknownContentError(f"there is a {found[0]} in it.")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of everything that has a hand in the numbers or the files.

    Args:
        *packages: the names of others that shall be told.
    """
    from importlib.metadata import version

    told = {
        "jaxviz": __version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "tensorstore": version("tensorstore"),
        "python": python_version(),
    }
    return told | {package: version(package) for package in packages}


def forward(dtype: Any, platform: str) -> Identity:
    """Return what of the forward pass has a hand in the numbers."""
    return {
        "dtype": str(dtype),
        "precision": str(jax.config.jax_default_matmul_precision),  # pyright: ignore
        "platform": platform,
    }


def differences(there: Identity, now: Identity) -> list[str]:
    """Return in words how two identities differ where they must not.

    Args:
        there: the identity of the run that made a store.
        now: the identity of the run that wants to go on.

    Returns:
        One phrase per difference; none if the runs are the same.

    Example:
        >>> differences({"grid": {"patch": [4, 4]}}, {"grid": {"patch": [8, 8]}})
        ['grid.patch is [4, 4] there and [8, 8] now']
    """
    one, two = dict(_flatten(there)), dict(_flatten(now))
    found = []
    if one.get("kind") != two.get("kind"):
        return [f"there are {_show(one, 'kind')} there, not {_show(two, 'kind')}"]
    for key in sorted({*one, *two}):
        if key.startswith(FREE):
            continue
        if key.startswith("source.samples.") and not (key in one and key in two):
            continue  # that image could not be read in one of the runs
        if one.get(key) != two.get(key):
            found.append(f"{key} is {_show(one, key)} there and {_show(two, key)} now")
    return found


def _flatten(identity: Identity, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in identity.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _show(flat: Identity, key: str) -> str:
    if key not in flat:
        return "nothing"
    text = str(flat[key])
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{16,}", text) else text
