"""A cache keeps what was used last, within its bytes."""

import pytest

from jaxviz.jaxpr.cache import Cache


def test_the_least_recently_used_goes_first():
    cache, made = Cache[list](20, lambda value: value[1]), []

    def get(key, size=8):
        return cache.get(key, lambda: made.append(key) or [key.upper(), size])[0]

    assert [get(key) for key in "aba"] == ["A", "B", "A"]
    assert made == ["a", "b"] and cache.bytes == 16
    get("c")
    assert [get(key) for key in "ac"] == ["A", "C"] and made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"] and len(cache) == 2
    get("large", 100)
    assert len(cache) == 1 and get("large") == "LARGE"
    cache.get("large", list)[1] = 3
    assert cache.bytes == 3  # a value may grow or shrink after it was made
    cache.clear()
    assert len(cache) == 0 and cache.bytes == 0


def test_what_cannot_be_made_is_not_kept():
    cache = Cache[int](1, int)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert len(cache) == 0
