"""Take arguments in keras-vis's order and by its names, beside ours."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

THEIR_NAMES = {
    "layer_idx": "layer",
    "wrt_tensor": "wrt",
    "penultimate_layer_idx": "penultimate",
}


def called_as(*order: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function be called as keras-vis's is, whose positional arguments have this order.

    Example:
        >>> @called_as("model", "layer", "wrt")
        ... def show(model, *, layer=None, wrt=None):
        ...     return model, layer, wrt
        >>> show("net", 3, wrt_tensor="conv")
        ('net', 3, 'conv')
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            if len(args) > len(order):
                raise TypeError(
                    f"`{function.__name__}` takes {len(order)} positional arguments, "
                    f"{', '.join(order)}: got {len(args)}."
                )
            named: dict[str, Any] = dict(zip(order, args, strict=False))
            for name, value in kwargs.items():
                ours = THEIR_NAMES.get(name, name)
                if ours in named:
                    raise TypeError(f"`{ours}` must be given once: got a second value, {value!r}.")
                named[ours] = value
            any_function: Any = function
            return any_function(**named)

        return call

    return decorated
