"""A network drawn as a graph: one box a layer, top to bottom, with what a patch changes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jaxviz._files import whole
from jaxviz.network import INPUT, Layer, layers_of

BOX, ROW, GAP, LEFT = (300, 46), 64, 24, 40  # pixels
PALETTE = {  # the first word of a kind, and the colour of its box
    "convolution": "#dbe8f4",
    "dense": "#f7e3c4",
    "max": "#e4eedb",
    "average": "#e4eedb",
    "mean": "#e4eedb",
    "add": "#efe0ee",
    "concatenate": "#efe0ee",
}
PLAIN, INK, FAINT, PATCH = "#f1f1ee", "#222", "#6b6b6b", "#b2182b"


@dataclass(frozen=True, repr=False)
class Drawing:
    """A picture as SVG text. As the last value of a notebook's cell it shows itself.

    Attributes:
        svg: the picture.
        layers: what it shows.
    """

    svg: str
    layers: tuple[Layer, ...]

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file, whole or not at all, and return where.

        Raises:
            OSError: the file cannot be written.
        """
        with whole(path) as part:
            part.write_text(self.svg, encoding="utf-8")
        return Path(path)

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"Drawing({len(self.layers)} layers)"


def architecture(
    model: Any,
    *,
    image_shape: Sequence[int] | None = None,
    patch: int | tuple[int, int] | None = None,
    title: str = "",
) -> Drawing:
    """Draw a network as a graph: layer, operation, shape, parameters, and what each site sees.

    Args:
        model: a scorer whose layers have names: a Keras model, a module of Flax NNX, (Linen module,
            variables), or a function with `jaxviz.tag`.
        image_shape: (height, width, channel); None: the model's `input_shape`.
        patch: side or (rows, columns); each map with sites shows the window that it changes.
        title: above the graph.

    Returns:
        The drawing; `save` writes it as SVG.

    Raises:
        ValueError: the model does not tell its image's shape, or has no layers with names.

    Example:
        >>> import jaxviz as jv
        >>> jv.plot.architecture(jv.models.mnist_cnn(), patch=4)
        Drawing(8 layers)
    """
    shape = image_shape if image_shape is not None else getattr(model, "input_shape", None)
    if not isinstance(shape, tuple | list) or len(shape) != 3 or None in shape:
        raise ValueError(
            f"`image_shape` must be given as (height, width, channel): the model's is {shape}."
        )
    if image_shape is None:  # (H, W, C), also of a model whose channels come first
        shape = getattr(model, "image_shape", shape)
    layers = layers_of(model, tuple(shape), patch=1 if patch is None else patch)
    if len(layers) < 2:
        raise ValueError("`model` must have layers with names: name some with jv.tag.")
    return Drawing(_draw(layers, tuple(shape), patch, title), tuple(layers))


def _draw(layers: Sequence[Layer], shape: tuple[int, ...], patch: Any, title: str) -> str:
    places = _places(layers)
    columns = 1 + max(column for _, column in places.values())
    width = LEFT + columns * (BOX[0] + GAP) + LEFT
    top = 34 if title else 8
    height = top + ROW * (1 + max(row for row, _ in places.values())) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="ui-sans-serif, system-ui, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(LEFT, 22, title, 15, INK, "bold") if title else "",
        *(_edge(places[a], places[layer.name], top) for layer in layers for a in layer.inputs),
        _box(INPUT, "", "×".join(map(str, shape)), "", PLAIN, places[INPUT], top),
        *(_layer(layer, places[layer.name], top, patch is not None) for layer in layers),
        "</svg>",
    ]
    return "\n".join(filter(None, parts))


def _places(layers: Sequence[Layer]) -> Mapping[str, tuple[int, int]]:
    """Return (row, column) of each layer: below all that it reads, beside those of its row."""
    rows, taken, places = {INPUT: 0}, {0: 1}, {INPUT: (0, 0)}
    for layer in layers:
        row = 1 + max((rows[name] for name in layer.inputs), default=0)
        rows[layer.name] = row
        places[layer.name] = (row, taken.get(row, 0))
        taken[row] = taken.get(row, 0) + 1
    return places


def _corner(place: tuple[int, int], top: int) -> tuple[int, int]:
    return LEFT + place[1] * (BOX[0] + GAP), top + place[0] * ROW


def _edge(start: tuple[int, int], end: tuple[int, int], top: int) -> str:
    """Draw a straight line to the next row; past other layers, a curve along their left side."""
    (x, y), (u, v) = _corner(start, top), _corner(end, top)
    style = 'fill="none" stroke="#8a8a8a" stroke-width="1.5"'
    if end[0] - start[0] == 1 or start[1] != end[1]:
        from_x, to_x = x + BOX[0] / 2, u + BOX[0] / 2
        low = v - (ROW - BOX[1])  # the gap above the row of the end: down to it, then across
        path = f"M{from_x} {y + BOX[1]} V{low} C{from_x} {v} {to_x} {low} {to_x} {v}"
        return f'<path d="{path}" {style}/>'
    bulge = x - min(34, 12 + 3 * (end[0] - start[0]))
    from_y, to_y = y + BOX[1] / 2, v + BOX[1] / 2
    return f'<path d="M{x} {from_y} C{bulge} {from_y} {bulge} {to_y} {u} {to_y}" {style}/>'


def _layer(layer: Layer, place: tuple[int, int], top: int, patched: bool) -> str:
    shape = "×".join(map(str, layer.shape)) or "scalar"
    told = [shape]
    if layer.parameters:
        told.append(f"{_count(layer.parameters)} parameters")
    if layer.field is not None:
        told.append(f"sees {layer.field[0]}×{layer.field[1]}")
    colour = PALETTE.get(layer.kind.split(",")[0].split(" ")[0], PLAIN)
    box = _box(layer.name, layer.kind, " · ".join(told), _tip(layer), colour, place, top)
    return box + (_window(layer, place, top) if patched else "")


def _tip(layer: Layer) -> str:
    window = (
        "" if layer.window is None else f"; a patch changes {layer.window[0]}×{layer.window[1]}"
    )
    return f"{layer.name}: {layer.kind}{window}"


def _box(
    name: str, kind: str, told: str, tip: str, colour: str, place: tuple[int, int], top: int
) -> str:
    x, y = _corner(place, top)
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return (
        f'<g>{title}<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="5" fill="{colour}"'
        f' stroke="#c9c9c4"/>{_text(x + 10, y + 19, _short(name, 22), 13, INK, "bold")}'
        + _text(x + BOX[0] - 10, y + 19, _short(kind, 27), 11, FAINT, "normal", "end")
        + _text(x + 10, y + 36, told, 11, FAINT)
        + "</g>"
    )


def _window(layer: Layer, place: tuple[int, int], top: int) -> str:
    """Draw a map's outline and the window in its middle; a map that changes whole is filled."""
    if len(layer.shape) != 3:
        return ""
    x, y = _corner(place, top)
    rows, columns = layer.shape[:2]
    changed = layer.window or (rows, columns)
    side = 14 / max(rows, columns)
    left, up = x + BOX[0] - 26, y + 25
    w, h = columns * side, rows * side
    inner_w, inner_h = changed[1] * side, changed[0] * side
    return (
        f'<g><title>{escape(_tip(layer))}</title><rect x="{left}" y="{up}" width="{w:.1f}"'
        f' height="{h:.1f}" fill="#fff" stroke="{FAINT}" stroke-width=".8"/>'
        f'<rect x="{left + (w - inner_w) / 2:.1f}" y="{up + (h - inner_h) / 2:.1f}"'
        f' width="{inner_w:.1f}" height="{inner_h:.1f}" fill="{PATCH}"/></g>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: int,
    colour: str,
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _count(number: int) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
