"""What the values of options are read as; a wrong one is told in a sentence."""

from argparse import ArgumentTypeError


def words(text: str) -> tuple[str, ...]:
    """Parse A,B,…"""
    return tuple(part.strip() for part in text.split(","))


def numbers(text: str) -> tuple[float, ...]:
    """Parse 0.1,0.2,…"""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"must be a number, or A,B,…: got {text!r}.") from None


def integers(text: str) -> tuple[int, ...]:
    """Parse 1,2,…"""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"must be a whole number, or A,B,…: got {text!r}.") from None


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    return _positive(text, "a whole number from 1")


def batch(text: str) -> int | str:
    """Parse a whole number from 1, or "fastest"."""
    return text if text == "fastest" else _positive(text, '"fastest" or a whole number from 1')


def _positive(text: str, wanted: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be {wanted}: got {text!r}.")
    return int(text)


def sizes(text: str) -> tuple[int, ...]:
    """Parse H or H,W."""
    found = integers(text)
    if len(found) > 2:
        raise ArgumentTypeError(f"must be one or two numbers: got {text!r}.")
    return found


def fill(text: str) -> float | tuple[float, ...] | str:
    """Parse a number, one per channel, or the name of a fill."""
    if text.startswith("blur:"):
        numbers(text.removeprefix("blur:"))
        return text
    if text in ("mean", "patch_mean"):
        return text
    try:
        values = numbers(text)
    except ArgumentTypeError:
        wanted = "a number, one per channel, mean, patch_mean or blur:SIGMA, such as blur:10"
        raise ArgumentTypeError(f"must be {wanted}: got {text!r}.") from None
    return values[0] if len(values) == 1 else values


def refine(text: str) -> tuple[int, float] | tuple[int, float, float]:
    """Parse FACTOR,SHARE or FACTOR,SHARE,ERROR."""
    factor, *shares = numbers(text)
    shares_fit = len(shares) in (1, 2) and all(0 <= each <= 1 for each in shares)
    if factor < 2 or factor % 1 or not shares_fit:
        wanted = "FACTOR,SHARE or FACTOR,SHARE,ERROR, a whole number from 2 and shares from 0 to 1"
        raise ArgumentTypeError(f"must be {wanted}: got {text!r}.")
    return (int(factor), shares[0]) if len(shares) == 1 else (int(factor), shares[0], shares[1])


def share(text: str) -> tuple[int, int]:
    """Parse I/N."""
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        index = count = 0
    if not 0 <= index < count:
        raise ArgumentTypeError(f"must be I/N, 0 ≤ I < N: got {text!r}.")
    return index, count


def span(text: str) -> slice:
    """Parse A:B, or A alone."""
    first, colon, last = text.partition(":")
    try:
        if not colon:
            return slice(int(first), int(first) + 1)
        return slice(int(first or 0), int(last) if last else None)
    except ValueError:
        raise ArgumentTypeError(f"must be A:B or A, whole numbers: got {text!r}.") from None


def named(text: str) -> tuple[str, str]:
    """Parse NAME=FILE."""
    name, _, file = text.partition("=")
    if not (name and file):
        raise ArgumentTypeError(f"must be NAME=FILE: got {text!r}.")
    return name, file
