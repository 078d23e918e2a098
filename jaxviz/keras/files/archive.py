"""Bytes to (configuration, arrays): every format of Keras file, told apart by its content.

A file is read once, as bytes; JSON becomes plain lists and dictionaries, HDF5 becomes arrays. No
code, class or path that a file names is ever imported, called or opened.
"""

import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.files.shards import is_index, read_shards
from jaxviz.keras.hdf5.bytes import FREE_BYTES, MAX_INFLATION, SIGNATURE
from jaxviz.keras.hdf5.file import Group, Hdf5File

MAX_JSON = 16 << 20
MAX_ENTRIES = 10_000


class Archive(NamedTuple):
    """What a file holds, before any of it is interpreted.

    `format` is one of "keras", "hdf5 model", "hdf5 weights", "sharded weights", "json"; `config`
    the architecture, `weights` the HDF5 group under which the layers' arrays lie, `class_names` the
    names of the classes.
    """

    format: str
    keras_version: str | None
    backend: str | None
    config: dict[str, Any] | None
    weights: Group | None
    class_names: tuple[str, ...] | None = None


def read_archive(path: str | os.PathLike[str]) -> Archive:
    """Read a `.keras`, HDF5 or JSON file, whatever its name."""
    data = _read_bytes(Path(path))
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data)
    if data[:8] == SIGNATURE:
        return _read_hdf5(data)
    if data[:1] in (b"{", b"[") or data.lstrip()[:1] == b"{":
        return _read_json(Path(path), data)
    raise KerasFileError(f'"{path}" is not a Keras file: {_guess(data)}.')


_OTHERS = {
    b"": "it is empty",
    b"version https://git-lfs": "it is a pointer of Git LFS; fetch the file with `git lfs pull`",
    b"<": "it is a web page or XML; download the file itself",
    b"\x1f\x8b": "it is compressed; unpack it with gunzip",
    b"\x93NUMPY": "it is an array of NumPy",
    b"\x80": "it is a pickle, which is not read",
}


def _guess(data: bytes) -> str:
    """Return what a file is that people mistake for a Keras file."""
    if data[4:8] == b"TFL3":
        return "it is a model of TensorFlow Lite"
    start = data.lstrip()
    for magic, what in _OTHERS.items():
        if start.startswith(magic) if magic else not start:
            return what
    return "it is neither a zip archive nor HDF5 nor JSON"


def archive_from_config(config: dict[str, Any]) -> Archive:
    """Wrap an architecture: `model.get_config()`, or `model.to_json()` decoded."""
    if "layers" in config and "class_name" not in config:
        kind = "Functional" if "input_layers" in config else "Sequential"
        config = {"class_name": kind, "config": config}
    version, backend = config.get("keras_version"), config.get("backend")
    return Archive("json", _optional_text(version), _optional_text(backend), config, None)


def _read_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and (path / "saved_model.pb").exists():
            raise KerasFileError(
                f'"{path}" is a SavedModel of TensorFlow; save the model again as one .keras file.'
            )
        if stat.S_ISDIR(mode):
            raise KerasFileError(f'"{path}" is a folder; name the model file itself.')
        if not stat.S_ISREG(mode):
            raise KerasFileError(f'"{path}" is not a regular file.')
        return path.read_bytes()
    except OSError as error:
        raise KerasFileError(f'"{path}" cannot be read: {error.strerror}.') from error


def parse_json(data: bytes) -> Any:
    """Decode JSON of bounded size and depth."""
    if len(data) > MAX_JSON:
        raise KerasFileError(
            f"The architecture is {len(data)} bytes of JSON; {MAX_JSON} is the limit."
        )
    try:
        return json.loads(data)
    except RecursionError as error:
        raise KerasFileError("The architecture is nested too deeply to be one.") from error
    except ValueError as error:
        raise KerasFileError(f"The architecture is not valid JSON: {error}.") from error


def _read_json(path: Path, data: bytes) -> Archive:
    config = parse_json(data)
    if isinstance(config, dict) and is_index(config):
        return Archive("sharded weights", None, None, None, read_shards(path, config))
    if not isinstance(config, dict) or not {"class_name", "layers"} & set(config):
        raise KerasFileError(
            "The architecture must be a JSON object with `class_name` and `config`."
        )
    return archive_from_config(config)


def _read_hdf5(data: bytes) -> Archive:
    root = Hdf5File(data).root
    attributes = root.attributes
    text = attributes.get("model_config")
    weights: Any = root.get("model_weights", root)
    if not isinstance(weights, Group):
        raise KerasFileError('"model_weights" of the HDF5 file must be a group.')
    version = attributes.get("keras_version", weights.attributes.get("keras_version"))
    backend = attributes.get("backend", weights.attributes.get("backend"))
    if text is None:
        config = None
    elif isinstance(text, str):
        config = parse_json(text.encode())
    else:
        raise KerasFileError("`model_config` of the HDF5 file must be JSON text.")
    if config is not None and not isinstance(config, dict):
        raise KerasFileError("`model_config` of the HDF5 file must be a JSON object.")
    kind = "hdf5 weights" if config is None else "hdf5 model"
    version, backend = _optional_text(version), _optional_text(backend)
    return Archive(kind, version, backend, config, weights, _class_names(attributes))


def _class_names(attributes: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes, which some people store beside the model."""
    for key in ("class_names", "labels", "classes"):
        value = attributes.get(key)
        if isinstance(value, list) and all(
            isinstance(item, str) and item.isprintable() for item in value
        ):
            return tuple(value)
    return None


def _read_zip(data: bytes) -> Archive:
    if data.count(b"PK\x01\x02") > MAX_ENTRIES:
        raise KerasFileError(f"The zip archive has more than {MAX_ENTRIES} entries.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = _check_entries(archive)
            if "config.json" not in names or "model.weights.h5" not in names:
                raise KerasFileError(
                    "The zip archive is not a Keras model: it needs config.json and "
                    f"model.weights.h5, and holds {', '.join(sorted(names)[:5]) or 'nothing'}."
                )
            config = parse_json(_extract(archive, "config.json", len(data)))
            metadata = {}
            if "metadata.json" in names:
                metadata = parse_json(_extract(archive, "metadata.json", len(data)))
            weights = _extract(archive, "model.weights.h5", len(data))
    except KerasFileError:
        raise
    except Exception as error:  # zipfile raises a dozen types on damaged archives
        raise KerasFileError(f"The zip archive is truncated or damaged: {error}.") from error
    if not isinstance(config, dict) or not isinstance(metadata, dict):
        raise KerasFileError("config.json and metadata.json must be JSON objects.")
    version = _optional_text(metadata.get("keras_version"))
    return Archive("keras", version, None, config, Hdf5File(weights).root)


def _check_entries(archive: zipfile.ZipFile) -> set[str]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise KerasFileError(
                f'The zip archive names a path outside itself: "{entry.filename}".'
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise KerasFileError(f'The zip archive holds a symbolic link: "{entry.filename}".')
    if len(set(names)) != len(names):
        raise KerasFileError("The zip archive holds two entries of the same name.")
    return set(names)


def _extract(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    entry = archive.getinfo(name)
    limit = FREE_BYTES + MAX_INFLATION * min(entry.compress_size, size)
    if entry.file_size > limit:
        raise KerasFileError(
            f"{name} would grow from {entry.compress_size} to {entry.file_size} bytes: a zip bomb."
        )
    with archive.open(entry) as stream:
        data = stream.read(entry.file_size + 1)
        if len(data) != entry.file_size or stream.read(1):
            raise KerasFileError(f"{name} is not as long as the zip archive says.")
    return data


def _optional_text(value: Any) -> str | None:
    short = isinstance(value, str) and len(value) <= 40
    return value if short and value.isprintable() else None
