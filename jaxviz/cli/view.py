"""`jaxviz view`: one HTML file of the images of a store."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jaxviz.cli.inputs import check_class_names, read_class_names
from jaxviz.cli.output import say, stage
from jaxviz.images.decode import image_files, read_image
from jaxviz.images.files import Entry, fit_picture, picture_entries
from jaxviz.occlusion.result import Occlusion
from jaxviz.scale.attributed import StoredAttribution
from jaxviz.scale.reader import StoredOcclusion, open_store
from jaxviz.viewer import report
from jaxviz.viewer._numbers import kind_of


@dataclass(frozen=True)
class _Kept:
    """Images of a store that holds some classes only: what a page reads of an occlusion.

    Attributes:
        occlusion: the images, with the classes that are kept as theirs.
        classes: (N, k), which classes these are.
        count: how many classes the network has.
        kind: what its scores are. Of logits the others would be needed for probabilities.
    """

    occlusion: Occlusion
    classes: np.ndarray
    count: int
    kind: str

    def __getattr__(self, name: str) -> object:
        return getattr(self.occlusion, name)


def view(args: argparse.Namespace) -> None:
    """Write the page."""
    stored = open_store(args.store)
    chosen = np.arange(len(stored))[args.span or slice(None)]
    wanted = chosen[stored.done[chosen] & (stored.predicted[chosen] >= 0)]
    if not len(wanted):
        raise ValueError(f"`view` needs finished images: {stored.url} has none of them.")
    left, wanted = max(0, len(wanted) - args.limit), wanted[: args.limit]
    names = read_class_names(args.classes)
    check_class_names(args.classes, names, stored.base.shape[-1])
    with stage("reading the images"):
        found = stored_pictures(stored, args.images, wanted)
        pictures = np.stack([load() for _, load in found])
    with stage("making the page"):
        page = report(
            _with_classes(stored, wanted),
            pictures,
            class_names=names or stored.class_names,
            names=[name for name, _ in found],
            title=f"What the network looks at: {Path(args.store).name}",
        )
        out = args.out or Path(f"{Path(args.store).name.removesuffix('.zarr')}.html")
        page.save(out)
    note = f"; {left} more were left out, see --span and --limit" if left else ""
    say(f"wrote {len(wanted)} images to {out}{note}")


def _with_classes(stored: StoredOcclusion, wanted: np.ndarray) -> Occlusion | _Kept:
    occlusion, kept = stored[wanted], stored.classes
    if kept is None:
        return occlusion
    classes = kept[wanted] if kept.ndim == 2 else np.broadcast_to(kept, (len(wanted), len(kept)))
    base = stored.base
    kind = kind_of(base[wanted])
    return _Kept(occlusion, classes, base.shape[-1], "scores" if kind == "logits" else kind)


def stored_pictures(
    stored: StoredOcclusion | StoredAttribution,
    sources: Sequence[str],
    wanted: np.ndarray,
    what: str = "IMAGES",
) -> list[tuple[str, Callable[[], np.ndarray]]]:
    """Return, for each wanted image of a store, its name and a function that reads its picture.

    Args:
        stored: the store.
        sources: files and folders, which hold its images.
        wanted: (n,) numbers of images.
        what: what the sources are called in messages.

    Raises:
        ValueError: they are others.
    """
    height, width, _ = stored.identity["source"]["shape"]
    entries = _entries(sources)
    places = _places(stored, [name for name, _, _ in entries], wanted, what)
    names = stored.names or [name for name, _, _ in entries]
    return [
        (names[image], partial(_fitted, entries[place], (height, width, 3)))
        for image, place in zip(wanted.tolist(), places, strict=True)
    ]


def _fitted(entry: Entry, shape: tuple[int, int, int]) -> np.ndarray:
    return fit_picture(entry[2](), shape)


def _entries(sources: Sequence[str]) -> list[Entry]:
    """List the pictures as a run into a store does: one folder with its subfolders."""
    if len(sources) != 1 or not Path(sources[0]).is_dir():
        return [entry for source in sources for entry in picture_entries(source)]
    folder = Path(sources[0])
    files = image_files(folder, subfolders=True)
    return [(f.relative_to(folder).as_posix(), None, partial(read_image, f)) for f in files]


def _places(
    stored: StoredOcclusion | StoredAttribution, found: list[str], wanted: np.ndarray, what: str
) -> list[int]:
    """Return where the wanted images are among those found, by their names where they have some.

    The files may lie elsewhere now: then their own names tell them, unless two share one.
    """
    lost: list[str] = []
    if stored.names and list(stored.names) != found:
        for short in (str, lambda name: Path(name).name):
            known = [short(name) for name in found]
            counts = Counter(known)
            places = {name: i for i, name in enumerate(known) if counts[name] == 1}
            names = [short(stored.names[i]) for i in wanted]
            lost = [name for name in names if name not in places]
            if not lost:
                return [places[name] for name in names]
    if len(found) == len(stored):
        return wanted.tolist()
    if lost:
        raise ValueError(
            f"{what} must hold the images of the store: {len(lost)} are missing, or another file"
            f" has their name, such as {lost[0]}."
        )
    raise ValueError(f"{what} must be those of the store: got {len(found)}, it has {len(stored)}.")
