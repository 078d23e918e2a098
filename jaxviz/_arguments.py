"""Checks of arguments that every package shares."""

from typing import Any

import numpy as np

Pair = tuple[int, int]


def whole_number(value: Any, name: str, *, least: int = 1, choices: str = "") -> int:
    """Return a whole number of at least `least` as an int; `choices` tells what else may be.

    Raises:
        ValueError: it is another number, a bool, or no number; `name` is for the message.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        otherwise = choices and f"{choices} or "
        raise ValueError(f"`{name}` must be {otherwise}a whole number from {least}: got {value!r}.")
    return int(value)


def pair(value: int | Pair, name: str, *, least: int) -> Pair:
    """Return `value` as a (row, col) pair of ints of at least `least`; `name` is for the error."""
    both = (value, value) if isinstance(value, int | np.integer) else value
    is_pair = isinstance(both, tuple | list) and len(both) == 2
    if not is_pair or any(isinstance(v, bool) or not isinstance(v, int | np.integer) for v in both):
        raise TypeError(
            f"`{name}` must be a whole number or a (row, col) pair of them: got {value!r}."
        )
    if min(both) < least:
        raise ValueError(f"`{name}` must be at least {least}: got {value!r}.")
    return int(both[0]), int(both[1])
