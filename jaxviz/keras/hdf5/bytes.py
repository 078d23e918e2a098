"""Bounded reading of HDF5's bytes: every address is checked, every step and every byte is counted.

In an honest file each header, text and array is read once and lies apart from the others, so no
kind of them can add up to more than the file; that bounds what a dishonest one can cost.
"""

from jaxviz.keras.errors import KerasFileError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 0xFFFFFFFFFFFFFFFF
MAX_STEPS = 3_000_000
# Trained weights hardly compress; what grows more than this is a bomb, not a model.
MAX_INFLATION, FREE_BYTES = 20, 64 << 20


class Bytes:
    """The content of a file, and how much of it has been read."""

    def __init__(self, data: bytes):
        self.data = data
        self.steps = 0
        self.claimed: dict[str, int] = {}
        self.inflated = 0

    def count(self, size: int = 0) -> None:
        """Count a step of work, and one more for each KiB that it copies."""
        self.steps += 1 + (size >> 10)
        if self.steps > MAX_STEPS:
            raise KerasFileError("The HDF5 file is damaged: reading it does not end.")

    def claim(self, kind: str, size: int) -> None:
        """Count `size` bytes read as one kind of record; more than the file holds must overlap."""
        total = self.claimed.get(kind, 0) + size
        self.claimed[kind] = total
        if size < 0 or total > len(self.data):
            raise KerasFileError(f"The HDF5 file is damaged: its {kind} overlap or lie outside it.")

    def inflate(self, size: int) -> None:
        """Count the bytes that an array will need once its chunks are decompressed."""
        self.inflated += size
        if self.inflated > FREE_BYTES + MAX_INFLATION * len(self.data):
            raise KerasFileError("The HDF5 file declares far more data than it holds.")

    def span(self, address: int, size: int) -> memoryview:
        """Return a view of an array's bytes in the file, without copying."""
        self.claim("arrays", size)
        if not 0 <= address <= address + size <= len(self.data):
            raise KerasFileError("The HDF5 file is truncated or damaged: an array lies outside it.")
        return memoryview(self.data)[address : address + size]

    def at(self, address: int, end: int | None = None) -> "Cursor":
        """Return a cursor at an address of the file, which stops at `end`."""
        end = len(self.data) if end is None else end
        if not 0 <= address <= end <= len(self.data):
            raise KerasFileError("The HDF5 file is truncated or damaged: an address is outside it.")
        return Cursor(self, self.data, address, end)

    def within(self, body: bytes) -> "Cursor":
        """Return a cursor over bytes that are taken out of the file already."""
        return Cursor(self, body, 0, len(body))


class Cursor:
    """A position in some bytes; each read is checked and counted."""

    def __init__(self, source: Bytes, data: bytes, position: int, end: int):
        self.source, self.data, self.position, self.end = source, data, position, end

    @property
    def left(self) -> int:
        """How many bytes remain."""
        return self.end - self.position

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes and move past them."""
        self.source.count(size)
        if not 0 <= size <= self.left:
            raise KerasFileError("The HDF5 file is truncated or damaged: a record ends too early.")
        self.position += size
        return self.data[self.position - size : self.position]

    def integer(self, size: int) -> int:
        """Return the next `size` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.take(size), "little")

    def expect(self, magic: bytes) -> None:
        """Check a record's signature."""
        if self.take(len(magic)) != magic:
            raise KerasFileError(
                f"The HDF5 file is damaged: no {magic.decode()} where one belongs."
            )


def text(raw: bytes) -> str:
    """Decode a name, which must be printable UTF-8."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KerasFileError("The HDF5 file is damaged: a name is not text.") from error
    if not name.isprintable():
        raise KerasFileError("The HDF5 file is damaged: a name is not text.")
    return name
