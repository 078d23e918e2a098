"""A cache bounded by bytes and by number: what was used longest ago goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

V = TypeVar("V")


class Kept(Generic[V]):
    """Values, found again by an equal key.

    Example:
        >>> squares = Kept[int](number=2)
        >>> [squares.get(n, lambda n=n: n * n) for n in (1, 2, 3)], list(squares)
        ([1, 4, 9], [2, 3])
    """

    def __init__(
        self, *, number: int, size: float = float("inf"), size_of: Callable[[V], int] | None = None
    ) -> None:
        """Keep at most `number` values, which take at most `size` bytes by `size_of`."""
        self.number, self.size, self.size_of = number, size, size_of
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """Return the value of a key, made if it is new, and let old ones go.

        Values may grow after they are made: the bounds hold again at the next call. The value that
        is returned stays, however large it is.
        """
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > 1 and self._too_much():
            self._values.popitem(last=False)
        return self._values[key]

    def clear(self) -> None:
        """Let everything go."""
        self._values.clear()

    def _too_much(self) -> bool:
        held = 0 if self.size_of is None else sum(map(self.size_of, self._values.values()))
        return len(self._values) > self.number or held > self.size

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
