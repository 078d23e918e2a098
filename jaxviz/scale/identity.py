"""What a run is: its model, grid, fill, images, program and versions, so that it is known again.

Two runs with the same identity write the same bits. An identity is a dictionary that JSON can hold.
"""

import hashlib
import platform
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from jaxviz._version import __version__

Identity = dict[str, Any]
# Recorded, but free to differ from one part of a run to the next.
FREE = ("model.name", "versions.numpy", "versions.python", "versions.tensorstore")


def fingerprint(function: Callable, *arguments: Any) -> str:
    """Return the SHA-256 of what a function computes: its jaxpr, and every array it reads.

    Args:
        function: traceable.
        *arguments: pytrees of arrays, which count by value, and of shapes, which count as such.

    Returns:
        64 hexadecimal digits, the same in every process for the same function and versions.

    Example:
        >>> one, two = (fingerprint(lambda x, n=n: x * n, jnp.ones(3)) for n in (1.0, 2.0))
        >>> one == fingerprint(lambda x: x * 1.0, jnp.ones(3)), one == two
        (True, False)
    """
    closed = jax.make_jaxpr(function)(*arguments)
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr)).encode())
    for leaf in [*jax.tree.leaves(arguments), *closed.consts]:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            continue
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


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
        "python": platform.python_version(),
    }
    return told | {package: version(package) for package in packages}


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
    for key in sorted({*one, *two} - set(FREE)):
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
