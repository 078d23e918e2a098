"""What was planned or compiled, kept until it takes too many bytes: the least recently used goes.

Keys are texts of content (`jaxviz.jaxpr.content`), options and settings; values hold programs and
tables, never an object of the user's. Every cache of the package is one of these.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Generic, TypeVar

Value = TypeVar("Value")
BYTES_AN_EQUATION = 1 << 14  # of machine code, measured on convolutional networks on a CPU


class Cache(Generic[Value]):
    """Values by key, at most so many bytes of them.

    Args:
        budget: bytes of all values together; one value is kept whatever it takes.

    Example:
        >>> cache = Cache[str](budget=10)
        >>> cache.get("a", lambda: ("value", 8)), cache.get("a", lambda: ("unused", 8))
        ('value', 'value')
        >>> cache.get("b", lambda: ("other", 8)), len(cache)
        ('other', 1)
    """

    def __init__(self, budget: int):
        self.budget = budget
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = RLock()

    def get(self, key: Hashable, make: Callable[[], tuple[Value, int]]) -> Value:
        """Return the value of a key; `make` gives it, and its bytes, where it is not known."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            value = self._values[key][0]
            while len(self._values) > 1 and self.bytes > self.budget:
                self._values.popitem(last=False)
            return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()

    @property
    def bytes(self) -> int:
        """How many bytes the values take."""
        return sum(size for _, size in self._values.values())

    def __len__(self) -> int:
        return len(self._values)
