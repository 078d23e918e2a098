"""What was used longest ago goes first, when there are too many values or too many bytes."""

from jaxviz.scoring.kept import Kept


def test_a_value_is_made_once():
    made = []
    kept = Kept[int](number=3)
    for key in ("a", "b", "a"):
        kept.get(key, lambda key=key: made.append(key) or len(made))
    assert made == ["a", "b"]


def test_the_latest_stay():
    kept = Kept[int](number=2)
    for key in (1, 2, 1, 3):
        kept.get(key, lambda: 0)
    assert list(kept) == [1, 3]


def test_bytes_count_and_values_may_grow():
    kept = Kept[list](number=9, size=10, size_of=len)
    first = kept.get(1, list)
    kept.get(2, lambda: [0] * 10)
    assert list(kept) == [1, 2]
    first.append(0)
    assert kept.get(2, list) == [0] * 10 and list(kept) == [2]


def test_the_value_in_use_stays_however_large():
    kept = Kept[list](number=9, size=10, size_of=len)
    assert kept.get(1, lambda: [0] * 99) and list(kept) == [1]
    kept.clear()
    assert not list(kept)
