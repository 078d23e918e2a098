"""What was planned or compiled, kept until it takes too many bytes: the least recently used goes.

Keys are texts of content (`jaxviz.jaxpr.content`), options and settings; values hold programs and
tables, never an object of the user's. Every cache of the package is one of these.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Value = TypeVar("Value")
BYTES_AN_EQUATION = 1 << 14  # of machine code: what convolutional networks took on a CPU
_caches: "WeakSet[Cache[Any]]" = WeakSet()


def clear_caches() -> None:
    """Forget everything that any cache of the package holds."""
    for cache in list(_caches):
        cache.clear()


class Cache(Generic[Value]):
    """Values by key, at most so many bytes of them.

    Args:
        budget: bytes of all values together; the one asked for last stays, whatever it takes.
        size_of: the bytes of a value, which may grow after it was made.

    Example:
        >>> cache = Cache[str](10, len)
        >>> cache.get("a", lambda: "a value"), cache.get("a", lambda: "unused")
        ('a value', 'a value')
        >>> cache.get("b", lambda: "another"), len(cache)
        ('another', 1)
    """

    def __init__(self, budget: int, size_of: Callable[[Value], int]):
        self.budget, self.size_of = budget, size_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = RLock()
        _caches.add(self)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made if it is new; let go what was used longest ago."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > 1 and self.bytes > self.budget:
                self._values.popitem(last=False)
            return self._values[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()

    @property
    def bytes(self) -> int:
        """How many bytes the values take."""
        return sum(map(self.size_of, self._values.values()))

    def __len__(self) -> int:
        return len(self._values)
