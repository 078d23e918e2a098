"""Arrays from a legacy file of torch (before its zip format), without torch and without pickle.

Such a file is four pickles, a magic number, a protocol, facts on the machine, and the object, then
a fifth, the keys of the storages in order, and then each storage: its length and its bytes. Here
the pickles are read as data. `pickletools` cuts them into operations, of which those that build
dictionaries, tuples and tensors are carried out on plain values; nothing is imported or called, and
any other operation or name ends in `WeightsFileError`. What is allocated is bounded by the file.
"""

import math
import os
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

MAGIC = 119547037146038801333356
PROTOCOL = 1001
STORAGES = {
    "torch DoubleStorage": np.dtype("<f8"),
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch CharStorage": np.dtype("i1"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("?"),
}
TENSOR = "torch._utils _rebuild_tensor_v2"
DICTIONARY = "collections OrderedDict"


class WeightsFileError(ValueError):
    """A file of weights is damaged, or holds something else than tensors."""


@dataclass(frozen=True)
class _Name:
    """A global that the file names; never looked up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_MARK = object()


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a state dictionary that an older `torch.save` wrote.

    Args:
        path: the file.

    Returns:
        {name: array}, in the order of the file.

    Raises:
        WeightsFileError: the file is damaged, of another format, or holds anything but tensors by
            name; none of it was executed.
        OSError: the file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "hostile.pth"
        >>> _ = file.write_bytes(b"cos\\nsystem\\n.")
        >>> read_torch(file)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        WeightsFileError: the file must hold tensors only: got 'os system'.
    """
    stream = BytesIO(Path(path).read_bytes())
    try:
        if (_unpickled(stream), _unpickled(stream)) != (MAGIC, PROTOCOL):
            raise WeightsFileError("the file is not one that torch wrote before its zip format.")
        machine, found, keys = (_unpickled(stream) for _ in range(3))
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise WeightsFileError("the file must be of a little-endian machine.")
        return _arrays(found, _storages(stream, found, keys))
    except WeightsFileError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError) as error:
        why = ascii(str(error))[1:200]
        raise WeightsFileError(f"the file is not a sound file of torch: {why}.") from error


def _unpickled(stream: BytesIO) -> Any:
    """Build the value of one pickle, of plain values alone."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "STOP":
            (value,) = stack
            return value
        if operation.name in _PUSHED:
            stack.append(_PUSHED[operation.name](argument))
        elif operation.name in _MEMO:
            memo[argument] = stack[-1]
        elif operation.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif operation.name in _BUILT:
            _BUILT[operation.name](stack)
        elif operation.name != "PROTO":
            raise WeightsFileError(f"the file must hold tensors only: got {operation.name}.")
    return None  # genops raises before: a pickle without an end


def _global(name: str) -> _Name:
    if name not in (DICTIONARY, TENSOR, *STORAGES):
        raise WeightsFileError(f"the file must hold tensors only: got {ascii(name)[:100]}.")
    return _Name(name)


_MEMO = ("BINPUT", "LONG_BINPUT")
_PUSHED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), lambda value: value),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "MARK": lambda _: _MARK,
    "GLOBAL": _global,
}


def _above_mark(stack: list[Any]) -> list[Any]:
    """Take what lies above the last mark, and the mark."""
    at = len(stack) - 1
    while stack[at] is not _MARK:
        at -= 1
        if at < 0:
            raise WeightsFileError("the file is damaged: a mark is missing.")
    taken = stack[at + 1 :]
    del stack[at:]
    return taken


def _set_items(stack: list[Any], taken: list[Any]) -> None:
    for key, value in zip(taken[::2], taken[1::2], strict=True):
        if not isinstance(key, str) or not isinstance(stack[-1], dict):
            raise WeightsFileError("the file must hold tensors by name.")
        stack[-1][key] = value


def _append(stack: list[Any], taken: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise WeightsFileError("the file is damaged: it appends to what is no list.")
    stack[-1].extend(taken)


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def build(stack: list[Any]) -> None:
        if len(stack) < count:
            raise WeightsFileError("the file is damaged: a tuple lacks elements.")
        stack[-count:] = [tuple(stack[-count:])]

    return build


def _reduce(stack: list[Any]) -> None:
    """Build what a call with allowed names stands for: an empty dictionary, or a tensor."""
    arguments, function = stack.pop(), stack.pop()
    if function == _Name(DICTIONARY) and arguments == ():
        stack.append({})
    elif function == _Name(TENSOR):
        storage, offset, shape, strides, _, hooks, *_ = arguments
        if not isinstance(storage, _Storage) or hooks != {}:
            raise WeightsFileError("the file is damaged: a tensor without a storage.")
        stack.append(_Tensor(storage, offset, shape, strides))
    else:
        raise WeightsFileError("the file must hold tensors only: got another call.")


def _persistent(stack: list[Any]) -> None:
    kind, storage, key, _, length, view = stack.pop()
    if kind != "storage" or view is not None or not isinstance(key, str):
        raise WeightsFileError("the file is damaged: a reference to what is no storage.")
    stack.append(_Storage(key, STORAGES[storage.name], _whole(length)))


_BUILT: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": lambda stack: stack.append(tuple(_above_mark(stack))),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "SETITEM": lambda stack: _set_items(stack, [stack.pop(-2), stack.pop()]),
    "SETITEMS": lambda stack: _set_items(stack, _above_mark(stack)),
    "APPEND": lambda stack: _append(stack, [stack.pop()]),
    "APPENDS": lambda stack: _append(stack, _above_mark(stack)),
    "REDUCE": _reduce,
    # The state of the dictionary itself, such as versions of modules, is not needed.
    "BUILD": lambda stack: stack.pop(),
    "BINPERSID": _persistent,
}


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 48:
        # Its value is not told: tuples of tuples may be endless when written out.
        raise WeightsFileError("the file is damaged: a size is no whole number from 0.")
    return number


def _tensors(found: Any) -> Iterator[tuple[str, _Tensor]]:
    if not isinstance(found, dict):
        raise WeightsFileError("the file must hold tensors by name.")
    for name, tensor in found.items():
        if not isinstance(tensor, _Tensor):
            raise WeightsFileError(f"the file must hold tensors only: {ascii(name)[:100]} is none.")
        yield name, tensor


def _storages(stream: BytesIO, found: Any, keys: Any) -> dict[str, np.ndarray]:
    """Return each storage as a view of the file's bytes."""
    wanted = {tensor.storage.key: tensor.storage for _, tensor in _tensors(found)}
    data, at, storages = stream.getvalue(), stream.tell(), {}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise WeightsFileError("the file is damaged: the keys of its storages are no list.")
    for key in keys:
        storage = wanted[key]
        length = int.from_bytes(data[at : at + 8], "little")
        if length != storage.length or at + 8 + length * storage.dtype.itemsize > len(data):
            raise WeightsFileError(f"the file is cut off: {ascii(key)[:40]} lacks its values.")
        storages[key] = np.frombuffer(data, storage.dtype, length, at + 8)
        at += 8 + length * storage.dtype.itemsize
    return storages


def _arrays(found: Any, storages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # Many names may share a storage: what is copied must not exceed what the file holds.
    copied = sum(math.prod(map(_whole, tensor.shape)) for _, tensor in _tensors(found))
    if copied > sum(map(len, storages.values())):
        raise WeightsFileError("the file must hold the values of each tensor: some are shared.")
    return {name: _array(tensor, storages[tensor.storage.key]) for name, tensor in _tensors(found)}


def _array(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """Return a copy of a tensor, which must lie in its storage and be no larger than it."""
    shape = tuple(_whole(size) for size in tensor.shape)
    strides, offset = tuple(_whole(step) for step in tensor.strides), _whole(tensor.offset)
    if len(shape) != len(strides) or len(shape) > 8:
        raise WeightsFileError("the file is damaged: a tensor's shape and strides disagree.")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if 0 in shape:
        return np.zeros(shape, values.dtype)
    if last >= len(values) or math.prod(shape) > len(values):
        raise WeightsFileError("the file is damaged: a tensor exceeds its storage.")
    steps = tuple(step * values.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False).copy()
