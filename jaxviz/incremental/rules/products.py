"""Products: contracted axes are read whole, or in a band where a known matrix has one."""

from jaxviz.incremental.reach import Table
from jaxviz.incremental.rules.access import Access, Follow, Site
from jaxviz.jaxpr.neutral import zero
from jaxviz.jaxpr.walk import Constant


def dot_general(site: Site) -> Access:
    """Read whole the contracted axes; the result holds batch, left free, right free axes.

    A product with a known band of weights, as in a bilinear enlargement, reads through a stencil.
    """
    contracted, batch = site.params["dimension_numbers"]
    count, follows = len(batch[0]), []
    for side, shape in enumerate(site.shapes):
        line: list[Follow | None] = [None] * len(shape)
        for out, axis in enumerate(batch[side]):
            line[axis] = Follow(out)
        for axis in range(len(shape)):
            if axis not in batch[side] and axis not in contracted[side]:
                line[axis] = Follow(count)
                count += 1
        follows.append(line)
    # y[o] = sum over i of M[i, o] * x[i]: a band of M reads x in a stencil. The region of M is then
    # the columns of the window and the rows that they read; beyond the borders both hold 0.
    for side, other in ((0, 1), (1, 0)):
        band = _band(site, side) if not batch[0] else None
        if band is not None:
            free = follows[side][1 - contracted[side][0]]
            follows[side][contracted[side][0]] = Follow(free.axis, band)
            follows[other][contracted[other][0]] = Follow(free.axis, band)
    return Access(tuple(map(tuple, follows)), Constant(zero(site.dtype)))


def _band(site: Site, side: int) -> Table | None:
    """Return the stencil of an operand that is a known matrix, which contracts one axis."""
    contracted, _ = site.params["dimension_numbers"]
    matrix = site.value(site.operands[side]) if len(site.shapes[side]) == 2 else None
    if matrix is None or len(contracted[side]) != 1:
        return None
    return Table.band(matrix if contracted[side] == (0,) else matrix.T)
