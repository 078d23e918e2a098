"""Checked access to a layer's configuration: what is read is validated, the rest is refused."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from jaxviz.keras.errors import KerasFileError

# Largest extent, count or amount that a layer may name: more is damage, not a network.
MAX_SIZE = 1 << 24
MODELS = ("Functional", "Model", "Sequential")

# Fields that matter for training, for bookkeeping, or that the reader has used already.
_NOT_FOR_INFERENCE = frozenset(
    """name trainable dtype input_dtype batch_input_shape batch_shape input_shape input_dim
    input_length sparse ragged optional seed noise_shape build_config registered_name init
    momentum autocast implementation batch_size shared_object_id data_format""".split()
)
_NOT_FOR_INFERENCE_ENDINGS = ("_initializer", "_regularizer", "_constraint", "_init")


class Fields:
    """The configuration of one layer, whose fields are checked as they are read.

    Example:
        >>> fields = Fields({"units": 3, "use_bias": True})
        >>> fields.integer("units")
        3
        >>> fields.finish()
        Traceback (most recent call last):
        jaxviz.keras.errors.KerasFileError: field `use_bias` = True is not handled
    """

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        self.read: set[str] = set()

    def raw(self, name: str, default: Any = None) -> Any:
        """Return a field as the file has it, unchecked."""
        self.read.add(name)
        return self.config.get(name, default)

    def has(self, name: str) -> bool:
        """Return whether the field is there and not null."""
        return self.config.get(name) is not None

    def wrong(self, name: str, rule: str) -> KerasFileError:
        """Return the error for a field that breaks its rule."""
        value = repr(self.config.get(name))
        shown = value if len(value) < 80 else value[:77] + "..."
        return KerasFileError(f"field `{name}` must be {rule}: got {shown}")

    def integer(self, name: str, default: int | None = None, *, low: int = 1) -> int:
        """Return a field that is a whole number in [low, 2^24]."""
        value = self.raw(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not is_integer(value) or not low <= value <= MAX_SIZE:
            raise self.wrong(name, f"a whole number from {low} to {MAX_SIZE}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a field that is a finite number, or a NumPy scalar as Keras writes it."""
        value = self.raw(name, default)
        value = without_wrapping(value)
        if isinstance(value, Mapping) and value.get("type") == "ndarray":
            value = value.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e38:
            raise self.wrong(name, "a finite number")
        return float(value)

    def boolean(self, name: str, default: bool | None = None) -> bool:
        """Return a field that is true or false, or 1 or 0, as people write it in Python."""
        value = self.raw(name, default)
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise self.wrong(name, "true or false")
        return bool(value)

    def choice(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        """Return a field that is one of the allowed words."""
        value = self.raw(name, default)
        if value not in allowed:
            raise self.wrong(name, "one of " + ", ".join(allowed))
        return value

    def sizes(self, name: str, rank: int, default: Any = None, *, low: int = 1) -> tuple[int, ...]:
        """Return a field of one whole number in [low, 2^24] an axis; a single one is for all."""
        value = self.raw(name, default)
        if value is None:
            value = default
        values = tuple(value) if isinstance(value, list | tuple) else (value,) * rank
        if len(values) == 1:
            values *= rank
        if len(values) != rank or not all(is_integer(v) and low <= v <= MAX_SIZE for v in values):
            raise self.wrong(name, f"{rank} whole numbers from {low} to {MAX_SIZE}")
        return values

    def channels_first(self) -> bool:
        """Return whether the layer's channel axis comes before its spatial axes."""
        value = self.raw("data_format", "channels_last") or "channels_last"
        if value not in ("channels_first", "channels_last"):
            raise self.wrong("data_format", "channels_first or channels_last")
        return value == "channels_first"

    def finish(self) -> None:
        """Refuse every field that is set and that nobody has read."""
        for name, value in self.config.items():
            known = name in self.read or name in _NOT_FOR_INFERENCE
            if known or name.endswith(_NOT_FOR_INFERENCE_ENDINGS):
                continue
            if value is not None and value is not False and value != [] and value != {}:
                raise KerasFileError(f"field `{name}` = {str(value)[:60]} is not handled")


def without_wrapping(value: Any) -> Any:
    """Return the number or list in what Keras 3 writes for a value of NumPy's, else the value."""
    if isinstance(value, Mapping) and value.get("class_name") == "__numpy__":
        return value.get("config", {}).get("value")
    return value


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether a JSON value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)
