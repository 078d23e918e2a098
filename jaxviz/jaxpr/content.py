"""What a flat function computes, as 64 hexadecimal digits: the same for the same equations.

The digits depend on the structure alone (primitives, parameters, shapes, dtypes, which result is
read where, the scalars in the text), not on names, on the addresses of Python objects or on the
values of the arrays that were lifted out; and they are the same in every process. So they can stand
for a function in a cache, which then holds nothing of the user's, and in the record of a run.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.walk import Constant, Flat, Operand, flatten

# Rules of differentiation, which do not change what is computed.
_RULES = {"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "fwd", "bwd", "out_trees"}


class UnknownContentError(TypeError):
    """A parameter is an object of which nothing is known but its address, such as a callback."""


def content(flat: Flat) -> str:
    """Return the SHA-256 of a flat function.

    Raises:
        UnknownContentError: a parameter of an equation is a Python function, as of a callback.
    """
    return sha256("\n".join(_lines(flat)).encode()).hexdigest()


def array_content(array: Any) -> str:
    """Return the SHA-256 of an array's dtype, shape and values."""
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    values = np.asarray(jax.random.key_data(array) if is_key else array)
    digest = sha256(f"{array.dtype} {values.shape} ".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _lines(flat: Flat) -> Iterator[str]:
    yield f"{flat.constants} {flat.inputs} {' '.join(map(_operand, flat.outputs))}"
    read = {number for number in (*flat.constants, *flat.inputs)}
    for number in sorted(read):
        yield _aval(flat.avals[number])
    for equation in flat.equations:
        operands = " ".join(map(_operand, equation.operands))
        results = " ".join(f"{number}:{_aval(flat.avals[number])}" for number in equation.results)
        yield f"{results} = {equation.primitive.name} {operands} {_params(equation.params)}"


def _operand(operand: Operand) -> str:
    return _value(operand.value) if isinstance(operand, Constant) else str(operand)


def _aval(aval: Any) -> str:
    weak = "*" if getattr(aval, "weak_type", False) else ""
    return f"{getattr(aval, 'dtype', type(aval).__name__)}{getattr(aval, 'shape', '')}{weak}"


def _params(params: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={_value(v)}" for k, v in sorted(params.items()) if k not in _RULES)


def _value(value: Any) -> str:
    """Return a text for a parameter, equal for equal values in every process."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return repr(value)
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if _jax.is_jaxpr(value):
        flat, values = flatten(value, open_derivatives=True)
        return f"{{{content(flat)} {' '.join(map(array_content, values))}}}"
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return str(np.dtype(value))
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return array_content(value)
    if isinstance(value, Mapping):
        return f"{{{_params({str(key): item for key, item in value.items()})}}}"
    if isinstance(value, set | frozenset):
        return f"{{{' '.join(sorted(map(_value, value)))}}}"
    if isinstance(value, Sequence):
        return f"{type(value).__name__}({' '.join(map(_value, value))})"
    return _other(value)


def _other(value: Any) -> str:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "<")
    if callable(value) and str(module).startswith("jax.") and "<" not in name:
        return f"{module}.{name}"  # JAX's own, such as those of a random number generator
    text = repr(value)
    if callable(value) or " at 0x" in text:
        raise UnknownContentError(f"a parameter has no content that could be compared: {text}.")
    return f"{type(value).__name__}:{text}"
