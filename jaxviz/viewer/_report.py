"""What a page is made of: the images, the positions and their scores, and maps beside them."""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxviz._version import __version__
from jaxviz.perturbation.fill import Fill, FillLike, check_fill
from jaxviz.perturbation.fills import blur, make_fill
from jaxviz.plot._channels import MOST_CHANNELS, in_colour
from jaxviz.plot._inputs import display_range
from jaxviz.viewer._encode import colours, encode_array, encode_map, encode_picture
from jaxviz.viewer._numbers import kind_of, score_image, surprise
from jaxviz.viewer._page import Report, make_page

COLOUR_MAP = "RdBu_r"  # that of signed maps in jaxviz.plot
AFFINE_SLACK = 2.0  # bytes: pictures are rounded


def report(
    results: Any,
    images: Any,
    *,
    pictures: Any = None,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[int] = (),
    keep: int = 12,
    fill: FillLike | None = None,
    title: str = "What the network looks at",
) -> Report:
    """Make one HTML file in which every position of an occlusion can be pointed at.

    Args:
        results: an occlusion result; a list of results and maps; or a dict of them by the name that
            their tab shall have. One at most is an occlusion with positions; the others are
            attributions, or arrays (N, H, W) or (H, W).
        images: what was explained, (N, H, W), (N, H, W, C), or one image of a single result; bytes,
            0…1, 0…255 or any other range and any channels, as `jaxviz.plot` takes them.
        pictures: what to show instead, of the same shapes, where `images` are in a network's units:
            blue first, or less a mean. Patches are drawn through the affine map from one to the
            other.
        class_names: the name of every class; default: those that the result knows, else numbers.
        names: of the images, such as their files'.
        classes: classes to keep in any case.
        keep: how many classes of each image the page holds; they are the top five of the clean
            image, `classes`, and those that come up at some position.
        fill: what the patches were made of, if it was given to `occlude` as a function or an image;
            numbers, means and blurs are known from the result.
        title: of the page.

    Returns:
        The report; `save` writes it.

    Raises:
        ValueError: the images do not suit the results, or a class is out of range.

    Example:
        >>> import jaxviz as jv
        >>> images = np.eye(6, dtype=np.float32)[None, :, :, None]
        >>> occ = jv.occlude(lambda x: x.mean((1, 2)), images, patch=2)
        >>> jv.viewer.report(occ, images).count
        1
    """
    named = _by_name(results)
    occlusions = {name: r for name, r in named.items() if _has_positions(r)}
    if len(occlusions) > 1:
        raise ValueError(
            f"`results` must hold one occlusion with positions at most: got {len(occlusions)}."
        )
    occlusion = next(iter(occlusions.values()), None)
    single = occlusion.single if occlusion is not None else _is_single(named)
    seen = _batch(images, single, "images")
    shown = seen if pictures is None else _batch(pictures, single, "pictures")
    if shown.shape[:3] != seen.shape[:3]:
        raise ValueError(f"`pictures` must suit `images`: got {shown.shape} for {seen.shape}.")
    low, high = display_range(shown)
    painted = _as_bytes(shown, low, high)
    class_names = class_names or _names_of(named)
    layers = {n: _maps(r, n, len(painted)) for n, r in named.items() if not _has_positions(r)}
    data: dict[str, Any] = {
        "version": __version__,
        "title": title,
        "colours": colours(COLOUR_MAP),
        "methods": list(named),
        "kind": "none",
        "images": _image_records(painted, layers, names),
    }
    if occlusion is not None:
        _add_positions(data, occlusion, next(iter(occlusions)), layers, list(classes), keep)
        _add_fill(data, dict(occlusion.config).get("fill", ""), fill, seen, painted)
    data["classes"] = _class_names(data, class_names)
    return Report(make_page(data, title), len(painted))


def _by_name(results: Any) -> dict[str, Any]:
    if isinstance(results, Mapping):
        return {str(name): result for name, result in results.items()}
    several = isinstance(results, list | tuple)
    named: dict[str, Any] = {}
    for result in results if several else [results]:
        name = str(getattr(result, "method", "occlusion" if _has_positions(result) else "map"))
        again = sum(other.split(" #")[0] == name for other in named)
        named[f"{name} #{again + 1}" if again else name] = result
    return named


def _has_positions(result: Any) -> bool:
    return all(hasattr(result, name) for name in ("scores", "base", "grid"))


def _is_single(named: Mapping[str, Any]) -> bool:
    first = next(iter(named.values()), None)
    if first is None:
        raise ValueError("`results` must hold a result or a map: got none.")
    return bool(getattr(first, "single", np.ndim(first) == 2))


def _names_of(named: Mapping[str, Any]) -> Sequence[str] | None:
    known = (getattr(result, "class_names", None) for result in named.values())
    return next((names for names in known if names), None)


def _batch(images: Any, single: bool, name: str) -> np.ndarray:
    """Return images as (N, H, W, C)."""
    array = np.asarray(images)
    alone = array.ndim == 2 or (array.ndim == 3 and (array.shape[-1] in (1, 3) or len(array) > 1))
    batch = array[None] if single and alone else array
    batch = batch[..., None] if batch.ndim == 3 else batch
    if batch.ndim != 4 or batch.shape[-1] > MOST_CHANNELS:
        raise ValueError(
            f"`{name}` must be (N, H, W, C) with 1 to {MOST_CHANNELS} channels: got {array.shape};"
            " of other images give `pictures`."
        )
    return batch


def _as_bytes(batch: np.ndarray, low: float, high: float) -> np.ndarray:
    share = (batch.astype(np.float64) - low) / (high - low)
    colours = in_colour(np.clip(np.nan_to_num(share), 0, 1))
    return np.rint(colours * 255).astype(np.uint8)


def _maps(result: Any, name: str, count: int) -> np.ndarray:
    """Return a layer's maps (N, h, w); a result's are those of its own target."""
    maps = np.asarray(result.heatmap() if hasattr(result, "heatmap") else result, np.float64)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or len(maps) != count:
        raise ValueError(
            f"`results` must hold one map (H, W) an image: got {maps.shape} for {name!r} and"
            f" {count} image{'s' * (count != 1)}."
        )
    return maps


def _image_records(
    pictures: np.ndarray, layers: Mapping[str, np.ndarray], names: Sequence[str] | None
) -> list[dict[str, Any]]:
    if names is not None and len(names) != len(pictures):
        raise ValueError(f"`names` must have one per image: got {len(names)} of {len(pictures)}.")
    return [
        {
            "name": str(names[i]) if names is not None else f"image {i}",
            "src": encode_picture(picture),
            "height": picture.shape[0],
            "width": picture.shape[1],
            "maps": {name: encode_map(maps[i]) for name, maps in layers.items()},
            "surprise": {"drop": 0, "changes": 0, "disagreement": 0},
        }
        for i, picture in enumerate(pictures)
    ]


def _add_positions(
    data: dict[str, Any],
    occlusion: Any,
    tab: str,
    layers: Mapping[str, np.ndarray],
    classes: list[int],
    keep: int,
) -> None:
    scores, base = np.asarray(occlusion.scores), np.asarray(occlusion.base)
    scores, base = (scores[None], base[None]) if occlusion.single else (scores, base)
    if len(scores) != len(data["images"]):
        raise ValueError(
            f"`images` must be those of the result: got {len(data['images'])} for {len(scores)}."
        )
    kept = getattr(occlusion, "classes", None)  # of a store that holds some classes only
    count = base.shape[-1] if kept is None else occlusion.count
    if any(not 0 <= c < count for c in classes):
        raise ValueError(f"`classes` must lie in 0 to {count - 1}: got {classes}.")
    kind = kind_of(base) if kept is None else occlusion.kind
    data |= {"kind": kind, "tab": tab, "count": count, "positions": _positions(occlusion.grid)}
    drops = occlusion.heatmap()[None] if occlusion.single else occlusion.heatmap()
    for i, record in enumerate(data["images"]):
        flat = scores[i].reshape(-1, base.shape[-1])
        own = None if kept is None else kept[i]
        scored = score_image(base[i], flat, kind, classes, keep, own, single=count == 1)
        same_size = [m[i] for m in layers.values() if m[i].shape == drops[i].shape]
        record |= {
            "kept": scored.kept.tolist(),
            "base": [float(v) if np.isfinite(v) else None for v in scored.base],
            "scores": encode_array(scored.positions, "<f2" if kind != "scores" else "<f4"),
            "winners": encode_array(scored.winners, "<i4"),
            "surprise": surprise(scored, kind, [drops[i], *same_size]),
        }


def _positions(grid: Any) -> dict[str, Any]:
    """Return where the positions lie: patches by their starts, or groups of labels."""
    if hasattr(grid, "each"):
        raise ValueError(
            f"`results` must have the same segments in all images: got {grid}; make a page of each"
            " image, from a run of its own."
        )
    if hasattr(grid, "labels"):
        groups = [[int(label) for label in group] for group in grid.groups]
        labels = np.asarray(grid.labels)
        return {
            "kind": "segments",
            "labels": encode_array(labels, "<i4"),
            "width": labels.shape[1],
            "groups": groups,
        }
    return {
        "kind": "patches",
        "patch": list(grid.patch),
        "rows": [int(r) for r in grid.row_starts],
        "cols": [int(c) for c in grid.col_starts],
    }


def _add_fill(
    data: dict[str, Any],
    said: str,
    given: FillLike | None,
    images: np.ndarray,
    painted: np.ndarray,
) -> None:
    """Tell the page how a patch looks: cut from a picture, the mean beneath it, or unknown."""
    fill = make_fill(given) if given is not None else _fill_of(said)
    data["fill"] = str(fill) if fill is not None else said
    if fill is not None and fill.name == "patch mean":
        data["filled"] = "mean"
    if fill is None or not fill.whole:
        return
    floats = jnp.asarray(images, jnp.float32)
    check_fill(fill, floats)
    paint = _affine(images, painted)
    if paint is None:
        return
    data["filled"] = "picture"
    for record, image in zip(data["images"], floats, strict=True):
        record["fill"] = encode_picture(paint(np.asarray(fill.background(image))))


def _affine(images: np.ndarray, painted: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the affine map from a network's units to painted bytes; None if there is none."""
    x = images.reshape(-1, images.shape[-1]).astype(np.float64)
    y = painted.reshape(-1, 3).astype(np.float64)
    some = np.linspace(0, len(x) - 1, min(len(x), 20_000)).astype(int)
    design = np.concatenate([x[some], np.ones((len(some), 1))], 1)
    matrix, *_ = np.linalg.lstsq(design, y[some], rcond=None)
    if np.abs(design @ matrix - y[some]).max() > AFFINE_SLACK:
        return None

    def paint(background: np.ndarray) -> np.ndarray:
        painted = background.astype(np.float64) @ matrix[:-1] + matrix[-1]
        return np.rint(np.clip(painted, 0, 255)).astype(np.uint8)

    return paint


def _fill_of(said: str) -> Fill | None:
    """Return the fill that a result's record names, as far as a name tells it."""
    if match := re.fullmatch(r"constant (\[?)(.*?)\]?", said):
        values = [float(v) for v in match[2].split(",")]
        return make_fill(values if match[1] else values[0])
    if match := re.fullmatch(r"blur ([\d.e+-]+)", said):
        return blur(float(match[1]))
    known = {"image mean": "mean", "patch mean": "patch_mean"}
    return make_fill(known[said]) if said in known else None


def _class_names(data: dict[str, Any], names: Sequence[str] | None) -> dict[str, str]:
    """Return the names of the classes that the page may show, by number."""
    count = data.get("count", 0)
    if names is not None and count and len(names) != max(count, 2 if count == 1 else 0):
        raise ValueError(f"`class_names` must name every class: got {len(names)} for {count}.")
    if names is None:
        return {}
    shown = {c for record in data["images"] for c in record.get("kept", [])}
    for record in data["images"]:
        if "winners" in record:
            winners = np.frombuffer(b64decode(record["winners"]), "<i4")
            shown.update(int(c) for c in np.unique(winners) if c >= 0)
    return {str(c): str(names[c]) for c in sorted(shown) if c < len(names)}
