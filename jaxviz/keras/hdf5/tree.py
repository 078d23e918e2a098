"""HDF5's indexes: object headers, symbol tables and links, as (type, body) messages and names.

A link that leads to another place or file is kept as the address -1, and never followed. Sections
are those of the HDF5 File Format Specification, version 3.0; numbers are little-endian, and an
address counts bytes from the file's start.
"""

import struct
from collections.abc import Iterator

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5.bytes import UNDEFINED, Bytes, Cursor, text

DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL = 0x01, 0x02, 0x03, 0x06, 0x07
LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION = 0x08, 0x0B, 0x0C, 0x10
SYMBOL_TABLE, ATTRIBUTE_INFO = 0x11, 0x15
ELSEWHERE = -1
_MAX_NAME = 1 << 16

Message = tuple[int, bytes]


def root_address(source: Bytes) -> int:
    """Return the address of the root group's object header, from the superblock."""
    cursor = source.at(8)
    version = cursor.integer(1)
    # II.A: | signature 8 | version 1 | other versions 4 | sizes of address and length 2 | - 1 |
    # ranks of trees 4 | flags 4 | base 8 | free space 8 | end of file 8 | driver 8 |
    # root: name 8, header 8 |; version 1 has 4 bytes more, 2 and 3 leave out what is skipped here.
    if version in (0, 1):
        cursor.take(4)
        sizes = cursor.take(2)
        cursor.take(9 if version == 0 else 13)
        base, _, end, _ = (cursor.integer(8) for _ in range(4))
        cursor.integer(8)
    elif version in (2, 3):
        sizes = cursor.take(2)
        cursor.take(1)
        base, _, end = (cursor.integer(8) for _ in range(3))
    else:
        raise KerasFileError(f"The HDF5 file has a superblock of unknown version {version}.")
    if sizes != b"\x08\x08" or base != 0:
        raise KerasFileError("The HDF5 file is damaged, or made with unusual address sizes.")
    if end > len(source.data):
        raise KerasFileError(
            f"The HDF5 file is truncated: {len(source.data)} bytes of {end} are there."
        )
    return cursor.integer(8)


def read_messages(source: Bytes, address: int) -> Iterator[Message]:
    """Yield the (type, body) messages of the object header at `address`, of version 1 or 2."""
    cursor = source.at(address)
    if source.data[address : address + 4] == b"OHDR":
        yield from _messages_v2(source, cursor)
        return
    if cursor.integer(1) != 1:
        raise KerasFileError("The HDF5 file is damaged: an object header is unreadable.")
    # IV.A.1.a: | version 1 | - 1 | messages 2 | references 4 | size 4 | padding 4 | messages ... |
    cursor.take(1)
    total = cursor.integer(2)
    cursor.take(4)
    size = cursor.integer(4)
    # A continuation message names another block; its messages follow those of the blocks before.
    blocks, seen = [(cursor.position + 4, size)], 0
    while blocks and seen < total:
        start, length = blocks.pop(0)
        cursor = source.at(start, start + length)
        while seen < total and cursor.left >= 8:
            kind, length, flags = cursor.integer(2), cursor.integer(2), cursor.integer(4) & 0xFF
            seen += 1
            yield from _message(source, kind, flags, cursor.take(length), blocks)
    if seen < total:
        raise KerasFileError("The HDF5 file is damaged: an object header is cut short.")


def _messages_v2(source: Bytes, cursor: Cursor) -> Iterator[Message]:
    # IV.A.1.b: | OHDR | version 1 | flags 1 | times 16? | attributes' limits 4? | size 1 to 8 |,
    # then messages of | type 1 | size 2 | flags 1 | order 2? | body |; "?" means: as the flags say.
    cursor.expect(b"OHDR")
    cursor.take(1)
    flags = cursor.integer(1)
    cursor.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
    size = cursor.integer(1 << (flags & 3))
    head = 6 if flags & 4 else 4
    blocks: list[tuple[int, int]] = [(cursor.position, size)]
    first = True
    while blocks:
        start, length = blocks.pop(0)
        cursor = source.at(start, start + length)
        if not first:
            cursor.expect(b"OCHK")
            cursor.end -= 4  # the checksum; in the first block it stands behind what `size` counts
        first = False
        while cursor.left >= head:
            kind, length, mark = cursor.integer(1), cursor.integer(2), cursor.integer(1)
            cursor.take(head - 4)
            yield from _message(source, kind, mark, cursor.take(length), blocks)


def _message(
    source: Bytes, kind: int, flags: int, body: bytes, blocks: list[tuple[int, int]]
) -> Iterator[Message]:
    source.claim("headers", len(body))
    # Bit 1: the body is not the message, but the address of one that several objects share.
    if flags & 2 and kind in (DATASPACE, DATATYPE, FILTERS, ATTRIBUTE):
        raise KerasFileError("The HDF5 file shares types between objects: Keras files do not.")
    if kind == CONTINUATION:
        if len(body) < 16:
            raise KerasFileError("The HDF5 file is damaged: a header continues nowhere.")
        blocks.append(struct.unpack("<QQ", body[:16]))
    elif kind == EXTERNAL:
        raise KerasFileError("The HDF5 file keeps its data in other files, which are not opened.")
    else:
        yield kind, body


def read_links(source: Bytes, messages: list[Message]) -> dict[str, int]:
    """Return a group's names and the addresses of their objects' headers."""
    links: dict[str, int] = {}
    for kind, body in messages:
        if kind == SYMBOL_TABLE:
            found = _symbol_table(source, body)
        elif kind == LINK:
            found = [_link(source, body)]
        elif kind == LINK_INFO:
            refuse_dense(body, 8, "a group with more links than fit its header")
            continue
        else:
            continue
        for name, address in found:
            if not name or name in links:
                raise KerasFileError("The HDF5 file is damaged: a name is missing or given twice.")
            links[name] = address
    return links


def refuse_dense(body: bytes, index_size: int, what: str) -> None:
    """Refuse links or attributes in a fractal heap with a version 2 B-tree beside it.

    The link and attribute info messages are there in any case; without such a heap its address
    is undefined. The index by creation order, of `index_size` bytes, stands before it if at all.
    """
    start = 2 + (index_size if len(body) > 1 and body[1] & 1 else 0)
    heap = int.from_bytes(body[start : start + 8], "little")
    if len(body) < start + 8 or heap != UNDEFINED:
        raise KerasFileError(
            f"The HDF5 file has {what}, which Keras does not write: save it again from Keras."
        )


def _symbol_table(source: Bytes, body: bytes) -> Iterator[tuple[str, int]]:
    if len(body) < 16:
        raise KerasFileError("The HDF5 file is damaged: a group has no table of names.")
    tree, heap = struct.unpack("<QQ", body[:16])
    # III.D, local heap: | HEAP | version 4 | size 8 | free list 8 | address of the names 8 |
    cursor = source.at(heap)
    cursor.expect(b"HEAP")
    cursor.take(4)
    size, _, start = (cursor.integer(8) for _ in range(3))
    names = source.at(start, start + size).take(size)
    for node in _leaves(source, tree):
        # III.B, III.C: | SNOD | version 2 | count 2 |, then entries of 40 bytes:
        # | offset of the name 8 | header 8 | cache type 4 | reserved 4 | scratch pad 16 |
        cursor = source.at(node)
        cursor.expect(b"SNOD")
        cursor.take(2)
        for _ in range(cursor.integer(2)):
            offset, address, kind = cursor.integer(8), cursor.integer(8), cursor.integer(4)
            cursor.take(20)
            end = names.find(b"\0", offset, offset + _MAX_NAME) if offset < size else -1
            # Cache type 2 is a soft link: the address would be meaningless.
            yield text(names[offset:end]) if end > 0 else "", ELSEWHERE if kind == 2 else address


def _leaves(source: Bytes, address: int) -> Iterator[int]:
    for _, child in walk_tree(source, address, 0, 8):
        yield child


def walk_tree(source: Bytes, address: int, kind: int, key: int) -> Iterator[tuple[bytes, int]]:
    """Yield the (key, child address) pairs at the leaves of a version 1 B-tree.

    Args:
        source: the file.
        address: of the root node.
        kind: 0 for a tree over a group's names, 1 for one over an array's chunks.
        key: size of a key in bytes.
    """
    # III.A.1: | TREE | kind 1 | level 1 | used 2 | left sibling 8 | right sibling 8 |
    # | key 0 | child 0 | key 1 | child 1 | ... | last key |; a child of level 0 is a leaf. Siblings
    # are not followed: from the root down, each node is met once, unless the tree is a circle.
    waiting, seen = [address], {address}
    while waiting:
        cursor = source.at(waiting.pop(0))
        cursor.expect(b"TREE")
        if cursor.integer(1) != kind:
            raise KerasFileError("The HDF5 file is damaged: an index is of the wrong kind.")
        level, used = cursor.integer(1), cursor.integer(2)
        cursor.take(16)
        for _ in range(used):
            label, child = cursor.take(key), cursor.integer(8)
            if not level:
                yield label, child
                continue
            if child in seen:
                raise KerasFileError("The HDF5 file is damaged: an index contains itself.")
            seen.add(child)
            waiting.append(child)


def _link(source: Bytes, body: bytes) -> tuple[str, int]:
    # IV.A.2.g: | version 1 | flags 1 | kind 1? | order 8? | charset 1? | length 1 to 8 | name |
    # address 8 |; "?" means: as the flags say.
    cursor = source.within(body)
    cursor.take(1)
    flags = cursor.integer(1)
    kind = cursor.integer(1) if flags & 8 else 0
    cursor.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = text(cursor.take(cursor.integer(1 << (flags & 3))))
    return name, cursor.integer(8) if kind == 0 else ELSEWHERE
