"""A run on disk: a Zarr v3 group whose arrays are written chunk by chunk, each one whole or not.

A chunk is a range of images. Its `status` is written last, once everything else of it is durable;
so a chunk counts exactly if its status does, whenever the process died. Nothing in the group tells
when, where or in how many parts it was made: equal runs make equal files.

    scores     (image, row, col, class)   raw scores of the occluded images; NaN for a bad image
    base       (image, class)             scores of the clean images, float32, of all classes
    predicted  (image,)                   int32, the class with the largest clean score; −1: bad
    status     (image,)                   uint8: 0 not done, 1 scored, 2 bad
    error      (image, byte)              uint8, why an image is bad: UTF-8, zeros behind
    name       (image, byte)              uint8, the name of the image: UTF-8, zeros behind
    row, col   (row,), (col,)             int32, where the patches start
    class      (class,) or (image, class) int32, which classes were kept, if not all

and of an approximate run, what `Occlusion` tells of each image:

    approximation (image, measured)       float64: bound, confidence, checked, checked error, field
    exact      (image, row, col)          uint8, 1 where a score is not interpolated
    interpolation_error (image,)          float32

A store of judged maps holds, in place of scores, row, col and class,

    value      (image, method, metric)    float64, NaN where undefined
    target     (image,)                   int32, the class whose maps and scores they are; −1: bad

and one of attribution maps, for map number m of every image,

    values/m   (image, row, col, channel) the map, NaN for a bad image
    delta/m    (image,)                   float32, the gap of its sum, where it has one
    sampling/m (image,)                   float32, its error, where it is sampled

The group's attribute "jaxviz" holds the run's identity, see `jaxviz.scale.identity`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from jaxviz.scale.identity import Identity

NOT_DONE, SCORED, BAD = 0, 1, 2
ERROR_BYTES = 256
ZSTD = {"name": "zstd", "configuration": {"level": 3}}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
SUMMED = {"name": "crc32c"}


class ArraySpec(NamedTuple):
    """One array of the group: its axes, its dtype and how many images a file of it holds."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: str
    chunk: int | None  # None: the whole array in one file
    empty: float | int | str


class Store:
    """An open group."""

    def __init__(self, kvstore: ts.KvStore, identity: Identity, arrays: dict[str, ts.TensorStore]):
        self.kvstore, self.identity, self.arrays = kvstore, identity, arrays

    @property
    def url(self) -> str:
        """Where it is."""
        return self.kvstore.url

    @property
    def count(self) -> int:
        """How many images it is for."""
        return self.arrays["status"].shape[0]

    @property
    def chunk(self) -> int:
        """How many images are written at a time."""
        return self.identity["program"]["chunk"]

    def status(self) -> np.ndarray:
        """Return the status of every image, uint8 (N,)."""
        return self.read("status", slice(None))

    def images_of(self, chunk: int) -> range:
        """Return the numbers of the images of a chunk."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, self.count))

    def unfinished(self) -> list[int]:
        """Return the numbers of the chunks that are still to be computed."""
        status = self.status()
        starts = range(0, self.count, self.chunk)
        return [
            c for c, at in enumerate(starts) if (status[at : at + self.chunk] == NOT_DONE).any()
        ]

    def read(self, name: str, where: Any) -> np.ndarray:
        """Return part of an array."""
        with plain_errors(self.kvstore, "read"):
            return np.asarray(self.arrays[name][where].read().result())

    def texts(self, name: str, where: Any = slice(None)) -> list[str]:
        """Return the strings of "name" or "error"."""
        return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in self.read(name, where)]

    def write(self, chunk: int, rows: dict[str, np.ndarray], errors: Sequence[str]) -> None:
        """Write a chunk; when this returns, it is durable, and counts.

        Args:
            chunk: its number.
            rows: its part of every array but "status" and "error".
            errors: for each image, why it is bad, and its rows empty; "" for a good one.

        Raises:
            OSError: it could not be written; the chunk then does not count.
        """
        images = self.images_of(chunk)
        where = slice(images.start, images.stop)
        bad = np.array([bool(error) for error in errors])
        rows = {name: self._without(bad, name, values) for name, values in rows.items()}
        rows["error"] = _bytes(errors, ERROR_BYTES)
        with plain_errors(self.kvstore, "written"):
            for future in [self._put(name, where, values) for name, values in rows.items()]:
                future.result()
            self._put("status", where, np.where(bad, BAD, SCORED)).result()

    def _without(self, bad: np.ndarray, name: str, values: np.ndarray) -> np.ndarray:
        empty = self.arrays[name].fill_value
        return np.where(bad.reshape(-1, *[1] * (values.ndim - 1)), empty, values)

    def reset(self, chunk: int) -> None:
        """Make a chunk not count, before it is computed again."""
        images = self.images_of(chunk)
        with plain_errors(self.kvstore, "written"):
            nothing = np.full(len(images), NOT_DONE)
            self._put("status", slice(images.start, images.stop), nothing).result()

    def _put(self, name: str, where: slice, values: np.ndarray) -> ts.Future:
        array = self.arrays[name]
        # In a transaction of its own, so that a file of several images is written once, whole.
        transaction = ts.Transaction()
        values = values.astype(array.dtype.numpy_dtype)
        array.with_transaction(transaction)[where].write(values).result()
        return transaction.commit_async()


def connect(store: str | Path | dict[str, Any]) -> ts.KvStore:
    """Return the place that a store has: a folder, a URL such as gs:// or s3://, or a spec.

    Args:
        store: the path of a folder, a URL, or the JSON of a tensorstore key-value store.

    Returns:
        The key-value store.

    Raises:
        ValueError: there is no such kind of place.
    """
    if isinstance(store, dict):  # a path is what keys begin with: that of a folder ends so
        path = str(store.get("path", "")).rstrip("/")
        spec: Any = {**store, "path": f"{path}/"} if path else store
    elif re.match(r"\w[\w+.-]+://", str(store)):  # one letter would be a disk
        spec = str(store).rstrip("/") + "/"
    else:
        spec = {"driver": "file", "path": f"{Path(store).absolute().as_posix()}/"}
    try:
        return open_place(spec)
    except ValueError as error:
        raise ValueError(
            f"`store` must be a folder or a URL that tensorstore knows: got {store}"
            f" ({_first_words(error)})."
        ) from error


def open_place(spec: Any) -> ts.KvStore:
    """Return the key-value store of a tensorstore spec, as it stands."""
    return ts.KvStore.open(spec, context=_context()).result()


def find(kvstore: ts.KvStore) -> Store | None:
    """Open the store that is there, None if there is nothing yet.

    Raises:
        ValueError: what is there is something else.
        OSError: it cannot be read.
    """
    with plain_errors(kvstore, "read"):
        found = kvstore.read("zarr.json").result()
        if found.state == "missing":
            foreign = _foreign(kvstore)
    if found.state == "missing":
        if foreign:
            raise ValueError(
                f"`store` must be a store of jaxviz, or nothing: {kvstore.url} holds {foreign}."
            )
        return None
    try:
        identity = json.loads(found.value)["attributes"]["jaxviz"]
        names = identity["arrays"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`store` must be a store of jaxviz: {kvstore.url} is not.") from error
    with plain_errors(kvstore, "read"):
        opened = {name: ts.open(_location(kvstore, name), context=_context()) for name in names}
        return Store(kvstore, identity, {name: array.result() for name, array in opened.items()})


def create(
    kvstore: ts.KvStore,
    identity: Identity,
    specs: dict[str, ArraySpec],
    known: dict[str, np.ndarray],
) -> Store:
    """Make a store; the group itself comes last, so that a store is there whole or not at all.

    Arrays that lie there are those of a store whose making was interrupted: they are made anew. So
    the caller must know that there is no group, and that nobody else makes one.

    Args:
        kvstore: where, with no store.
        identity: of the run.
        specs: the arrays.
        known: arrays whose values are known beforehand.

    Returns:
        The store.

    Raises:
        OSError: it cannot be written.
    """
    identity = {**identity, "arrays": list(specs)}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"jaxviz": identity}}
    with plain_errors(kvstore, "written"):
        opened = {
            name: ts.open(
                {**_location(kvstore, name), "metadata": _metadata(spec)},
                create=True,
                delete_existing=True,
                context=_context(),
            )
            for name, spec in specs.items()
        }
        arrays = {name: array.result() for name, array in opened.items()}
        for name, values in known.items():
            arrays[name].write(values.astype(specs[name].dtype)).result()
        kvstore.write("zarr.json", json.dumps(group, indent=1).encode()).result()
    return Store(kvstore, identity, arrays)


def array_specs(
    count: int,
    grid_shape: tuple[int, int],
    classes: int,
    kept: int,
    *,
    chunk: int,
    dtype: str,
    name_bytes: int = 0,
    class_axes: tuple[str, ...] | None = None,
) -> dict[str, ArraySpec]:
    """Return the arrays of a store.

    Args:
        count: images.
        grid_shape: (rows, cols).
        classes: K, all of them.
        kept: how many of them the scores are kept of.
        chunk: images that are written at a time.
        dtype: of the scores, "float32" or "float16".
        name_bytes: the longest name; 0: images have no names.
        class_axes: the axes of "class", which tells the kept ones; None: all are kept.

    Returns:
        {name: spec}.
    """
    kept_axis = "class" if class_axes != ("image", "rank") else "rank"
    axes = ("image", "row", "col", kept_axis)
    rows, cols = grid_shape
    specs = {
        "scores": ArraySpec((count, rows, cols, kept), axes, dtype, chunk, "NaN"),
        **image_specs(count, classes, chunk, name_bytes),
        "row": ArraySpec((rows,), ("row",), "int32", None, 0),
        "col": ArraySpec((cols,), ("col",), "int32", None, 0),
    }
    if class_axes == ("class",):
        specs["class"] = ArraySpec((kept,), ("class",), "int32", None, -1)
    elif class_axes is not None:
        specs["class"] = ArraySpec((count, kept), class_axes, "int32", chunk, -1)
    return specs


def image_specs(count: int, classes: int, chunk: int, name_bytes: int = 0) -> dict[str, ArraySpec]:
    """Return the arrays that every store has: the clean scores, and how each image fared."""
    specs = {
        "base": ArraySpec((count, classes), ("image", "output"), "float32", chunk, "NaN"),
        "predicted": ArraySpec((count,), ("image",), "int32", chunk, -1),
        "status": ArraySpec((count,), ("image",), "uint8", chunk, NOT_DONE),
        "error": ArraySpec((count, ERROR_BYTES), ("image", "error_byte"), "uint8", chunk, 0),
    }
    if name_bytes:
        shape = (count, name_bytes)
        specs["name"] = ArraySpec(shape, ("image", "name_byte"), "uint8", None, 0)
    return specs


def as_bytes(text: str) -> bytes:
    """Return UTF-8; what a file's name holds that is no text, as backslashes and numbers."""
    return text.encode("utf-8", "backslashreplace")


def name_array(names: Sequence[str]) -> np.ndarray:
    """Return names as bytes, uint8 (N, longest)."""
    return _bytes(names, max(len(as_bytes(name)) for name in names))


@contextmanager
def plain_errors(kvstore: ts.KvStore, what: str) -> Iterator[None]:
    """Turn what tensorstore raises into OSError with a sentence for people."""
    try:
        yield
    except ValueError as error:
        hint = "; what was finished before is safe" if what == "written" else ""
        raise OSError(
            f"`store` {kvstore.url} cannot be {what}: {_first_words(error)}{hint}."
        ) from error


def _metadata(spec: ArraySpec) -> dict[str, Any]:
    size = np.dtype(spec.dtype).itemsize
    # Bytes of the same significance side by side: floats shrink by a sixth instead of a twentieth.
    packed = {
        "name": "blosc",
        "configuration": {
            "cname": "zstd",
            "clevel": 5,
            "shuffle": "shuffle" if size > 1 else "noshuffle",
            "typesize": size,
            "blocksize": 0,
        },
    }
    codecs: list[dict[str, Any]] = [LITTLE, packed] if size > 1 else [LITTLE, ZSTD]
    chunk = spec.shape if spec.chunk is None else (spec.chunk, *spec.shape[1:])
    if spec.axes[:2] == ("image", "row"):
        sharding = {
            "chunk_shape": (1, *chunk[1:]),
            "codecs": codecs,
            "index_codecs": [LITTLE, SUMMED],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "shape": spec.shape,
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "codecs": codecs,
        "fill_value": spec.empty,
        "dimension_names": spec.axes,
    }


def _location(kvstore: ts.KvStore, name: str) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": (kvstore / f"{name}/").spec().to_json()}


def _foreign(kvstore: ts.KvStore) -> str:
    """What is there besides the arrays of a store whose making was interrupted."""
    ours = {"scores", "base", "predicted", "status", "error", "row", "col", "name", "class"}
    ours |= {"value", "target", "values", "delta", "sampling"}
    ours |= {"approximation", "exact", "interpolation_error"}
    keys = [key.decode(errors="replace") for key in kvstore.list().result()]
    return next((key for key in keys if key.split("/")[0] not in {*ours, "zarr.json.__lock"}), "")


def _bytes(texts: Sequence[str], width: int) -> np.ndarray:
    rows = [as_bytes(text)[:width].ljust(width, b"\0") for text in texts]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(texts), width)


def _first_words(error: Exception) -> str:
    """The message of an error of tensorstore, without its code and the specs at its end."""
    return str(error).split(" [")[0].replace("\0", "/").split(": ", 1)[-1].strip()


@cache
def _context() -> ts.Context:
    # One for all, so that a store in memory (memory://) is found again.
    return ts.Context()
