"""Names that repeat, made distinct."""

from collections.abc import Iterable


def numbered(names: Iterable[str]) -> list[str]:
    """Return the names, distinct: the second "a" is "a#2", unless another is called that already.

    Example:
        >>> numbered(["a", "b", "a", "a#2", "a"])
        ['a', 'b', 'a#3', 'a#2', 'a#4']
    """
    names = list(names)
    taken, counts, found = set(names), dict.fromkeys(names, 0), []
    for name in names:
        counts[name] += 1
        choice = name
        if counts[name] > 1:
            choice = f"{name}#{counts[name]}"
            while choice in taken:
                counts[name] += 1
                choice = f"{name}#{counts[name]}"
            taken.add(choice)
        found.append(choice)
    return found
