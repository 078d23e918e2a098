"""Options and functions in words that are the same in every process, and others for other content.

A scorer is known by its equations; a method that makes maps, or a metric, runs on the host and has
none. It is known by its name, its options, and, unless it is of this package, whose version is
recorded, by its code and what that closes over. What such code calls in turn is not looked at.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from types import CodeType
from typing import Any

import jax
import numpy as np

from jaxviz.jaxpr.content import array_content

DIGITS = 16
PLAIN = (bool, int, float, complex, str, bytes, type(None), np.dtype, np.generic)


def described(value: Any, name: str) -> str:
    """Return words for a value: plain ones as they are, arrays and code by 16 hexadecimal digits.

    Args:
        value: a number, text, array, function, partial, or a pytree, sequence or mapping of such.
        name: of the argument, for the error.

    Raises:
        ValueError: there is something in it of which nothing is known but its address.

    Example:
        >>> described(partial(described, name="x"), "maps")
        "jaxviz.scale.described.described(name='x')"
    """
    return _words(value, name, ())


def _words(value: Any, name: str, above: tuple[int, ...]) -> str:
    if id(value) in above:
        return "itself"  # such as a function that calls itself
    inside = (*above, id(value))

    def words(part: Any) -> str:
        return _words(part, name, inside)

    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{value.shape}#{array_content(value)[:DIGITS]}"
    if isinstance(value, partial):
        options = [f"{key}={words(part)}" for key, part in value.keywords.items()]
        return f"{words(value.func)}({', '.join([*map(words, value.args), *options])})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{words(k)}: {words(v)}' for k, v in value.items())}}}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(words, value)))}}}"
    if isinstance(value, Sequence):
        kind = "" if type(value) in (list, tuple) else type(value).__name__
        return f"{kind}({', '.join(map(words, value))})"
    if inspect.ismethod(value):
        code = "" if _is_ours(value.__func__) else f" {_function(value.__func__, words)}"
        return f"{words(value.__self__)}.{value.__name__}{code}"
    if isinstance(value, type) or callable(value) and hasattr(value, "__qualname__"):
        return _function(value, words)
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        text = ", ".join(f"{key}={words(part)}" for key, part in fields.items())
        return f"{_told(value)}#{_digest(text + _call_of(value, words))}"
    return _tree(value, name, words)


def _function(function: Any, words: Any) -> str:
    """A function's name; with its code, defaults and closure where the package's version is not
    enough to know it."""
    function = inspect.unwrap(function, stop=lambda f: hasattr(f, "__code__"))
    called = f"{function.__module__}.{function.__qualname__}"
    code = getattr(function, "__code__", None)
    if code is None or _is_ours(function) and "<" not in called:
        return called
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [_code(code), words(function.__defaults__), words(function.__kwdefaults__)]
    # Without its module, which is another one where a script is imported.
    return f"{function.__qualname__}#{_digest(' '.join([*parts, *map(words, cells)]))}"


def _is_ours(function: Any) -> bool:
    """Whether its code is of this package; a wrapper of one of ours only has its name."""
    return str(getattr(function, "__globals__", {}).get("__name__")).startswith("jaxviz.")


def _call_of(value: Any, words: Any) -> str:
    """What an object does when it is called, where that is not of this package."""
    kinds = type(value).__mro__  # `getattr` would find what makes objects of the class
    call = next((vars(kind)["__call__"] for kind in kinds if "__call__" in vars(kind)), None)
    return "" if call is None or _is_ours(call) else f" {_function(call, words)}"


def _code(code: CodeType) -> str:
    constants = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_freevars} {constants}"


def _constant(constant: Any) -> str:
    is_set = isinstance(constant, frozenset)
    return repr(sorted(map(repr, constant)) if is_set else constant)


def _tree(value: Any, name: str, words: Any) -> str:
    leaves, structure = jax.tree.flatten(value)
    if len(leaves) == 1 and leaves[0] is value:
        raise ValueError(
            f"`{name}` must be known again by a run that goes on later: got a"
            f" {type(value).__name__}, of which nothing is known; give arrays, or a function whose"
            " options are numbers, texts and arrays."
        )
    text = f"{re.sub(' at 0x[0-9a-f]+', '', str(structure))} {' '.join(map(words, leaves))}"
    return f"{type(value).__name__}#{_digest(text + _call_of(value, words))}"


def _told(value: Any) -> str:
    text = str(value)
    return type(value).__name__ if "\n" in text or "(" in text else text


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:DIGITS]
