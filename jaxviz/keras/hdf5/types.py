"""HDF5 element types: a message body to a NumPy dtype, or to a kind of text."""

from typing import NamedTuple

import numpy as np

from jaxviz.keras.errors import KerasFileError

_FLOAT_LAYOUTS = {2: (10, 5), 4: (23, 8), 8: (52, 11)}


class Datatype(NamedTuple):
    """`kind` is "number", "text", "variable text" or "opaque"; `size` is in bytes."""

    kind: str
    size: int
    numpy: np.dtype | None


def parse_datatype(body: bytes) -> Datatype:
    """Return the element type that a datatype message describes.

    Example:
        >>> parse_datatype(bytes([0x10, 8, 0, 0, 4, 0, 0, 0, 0, 0, 32, 0]))
        Datatype(kind='number', size=4, numpy=dtype('int32'))
    """
    if len(body) < 8:
        raise KerasFileError("The HDF5 file is damaged: a type is cut short.")
    # IV.A.2.d: | class, version 4 bits each | bits 3 | size 4 | by class: bit offsets, widths ... |
    kind, bits, size = body[0] & 15, body[1], int.from_bytes(body[4:8], "little")
    if kind == 0 and size in (1, 2, 4, 8):
        return Datatype("number", size, _order(bits, f"{'i' if bits & 8 else 'u'}{size}"))
    if kind == 1 and size in _FLOAT_LAYOUTS and len(body) >= 20:
        # Bytes 13 and 15 are the widths of exponent and mantissa, which tell float16 from bfloat16.
        mantissa, exponent = _FLOAT_LAYOUTS[size]
        if (body[15], body[13]) == (mantissa, exponent):
            return Datatype("number", size, _order(bits, f"f{size}"))
    if kind == 3 and size:
        return Datatype("text", size, None)
    if kind == 5 and size:
        return Datatype("opaque", size, None)
    if kind == 8 and size == 1:  # an enumeration, which is how h5py writes bool
        return Datatype("number", 1, np.dtype("bool"))
    if kind == 9 and bits & 15 == 1:
        return Datatype("variable text", 16, None)
    raise KerasFileError(f"The HDF5 file holds elements of an unknown type (class {kind}).")


def _order(bits: int, code: str) -> np.dtype:
    return np.dtype((">" if bits & 1 else "<") + code)
