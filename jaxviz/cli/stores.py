"""`jaxviz occlude --store`, `status` and `export`: what is done with a store."""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz import plot
from jaxviz._choices import OnError
from jaxviz._files import file_name
from jaxviz.cli.inputs import (
    check_class_names,
    class_count,
    class_name,
    input_shape,
    load_model,
    make_preset,
    preprocessing,
    read_class_names,
    refuse,
)
from jaxviz.cli.occlude import SCORE_NAMES
from jaxviz.cli.output import output_folder, say, stage, table, write_arrays
from jaxviz.cli.streams import write
from jaxviz.cli.view import stored_pictures
from jaxviz.images.files import Entry, fit_picture, picture_entries
from jaxviz.occlusion.reading import Reading
from jaxviz.scale.attributed import StoredAttribution, open_attribution
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.judged import StoredComparison, open_comparison
from jaxviz.scale.lock import in_use
from jaxviz.scale.reader import ImageError, StoredOcclusion, open_store
from jaxviz.scale.sources import Source, open_source
from jaxviz.scale.store import connect, find
from jaxviz.scoring.targets import by_name

Stored = StoredOcclusion | StoredComparison | StoredAttribution
# Options of `export` for stores of scores alone, and what they are when they are not given.
OF_SCORES: dict[str, Any] = dict.fromkeys(("target", "score", "reduce"))
SHOWN = 20  # bad images in a table


def occlude_store(args: argparse.Namespace) -> int:
    """Score the images into a store; 130 if interrupted."""
    _join(args)
    model = load_model(args.model, args.weights)
    shape = input_shape(model, args.size)
    names = read_class_names(args.classes)
    check_class_names(args.classes, names, class_count(model.output_shape))
    try:
        stored = occlude_dataset(
            model,
            source_of(args, model, shape),
            args.store,
            **make_preset(args, shape[:2]),
            **_kept(args.keep),
            image_shape=shape,
            tolerance=args.tolerance,
            refine=args.refine,
            method=args.method,
            batch_size=args.batch_size or "auto",
            chunk=args.chunk or "auto",
            stored=args.stored,
            share=args.share,
            on_error=args.on_error or on_error_of(args.images),
            log=args.log,
            class_names=names,
            progress=jax.process_index() == 0,
        )
    except KeyboardInterrupt:
        say(f"interrupted; what was finished is in {args.store}: the same command goes on.")
        return 130
    tell(stored)
    return 0


def status(args: argparse.Namespace) -> None:
    """Print how far a store is, of scores or of judged maps."""
    stored = _open(args.store)
    if not args.json:
        tell(stored)
        return
    done, errors = stored.done, stored.errors
    facts = {
        "store": stored.url,
        "images": len(stored),
        "done": int(done.sum()),
        "bad": len(errors),
        "in_use": in_use(connect(args.store)),
        "errors": [error._asdict() for error in errors],
        "run": stored.identity,
    }
    write(json.dumps(facts))  # in ASCII: names survive any encoding of stdout


def _open(store: str) -> Stored:
    """Open a store of any kind."""
    found = find(connect(store))
    arrays = {} if found is None else found.arrays
    if "value" in arrays:
        return open_comparison(store)
    return open_attribution(store) if "values/0" in arrays else open_store(store)


def export(args: argparse.Namespace) -> None:
    """Write the heatmaps of a store, as pictures or arrays, with a table of what they are."""
    stored = _open(args.store)
    if isinstance(stored, StoredAttribution):
        refuse(args, OF_SCORES, "is for stores of scores: leave it out")
    elif not isinstance(stored, StoredOcclusion):
        stored = open_store(args.store)  # which says what it is
    folder = args.png or args.npz
    if folder is None or (args.png and args.npz):
        raise ValueError("`export` needs one of --png FOLDER and --npz FOLDER.")
    chosen = np.arange(len(stored))[args.span or slice(None)]
    wanted = chosen[stored.done[chosen] & (stored.predicted[chosen] >= 0)]
    if not len(wanted):
        raise ValueError(f"`export` needs finished images: {stored.url} has none of them.")
    if args.photos and not args.png:
        raise ValueError("`--photos` is drawn in pictures: give --png FOLDER.")
    args.names = stored.names  # of all images, read once
    if isinstance(stored, StoredOcclusion):
        args.class_names, args.kept = _names_and_target(stored, args), stored.classes
    else:
        args.class_names = read_class_names(args.classes)
    photos = stored_pictures(stored, args.photos, wanted, "--photos") if args.photos else None
    with output_folder(folder) as out, stage(f"exporting {len(wanted)} images", "images") as told:
        rows, args.taken = [], {"index"}
        for place, image in enumerate(wanted.tolist()):
            photo = None if photos is None else photos[place][1]()
            for exported in _heatmaps(stored, image, args):
                if args.png:
                    _draw(out, exported, photo)
                else:
                    arrays = {"heatmap": exported.values, "facts": json.dumps(exported.facts)}
                    write_arrays(out / exported.facts["file"], arrays)
                rows.append(exported.facts)
            told(place + 1, len(wanted))
        with open(out / "index.csv", "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    left = len(chosen) - len(wanted)
    note = f"; {left} are bad or not done" if left else ""
    say(f"wrote {len(rows)} heatmaps and index.csv to {folder}{note}")


def _join(args: argparse.Namespace) -> None:
    """Join the other processes, before anything else touches a device."""
    if args.coordinator:
        try:
            address, count, index = args.coordinator.split(",")
            jax.distributed.initialize(address, int(count), int(index))
        except ValueError as error:
            raise ValueError(
                f"`--coordinator` must be HOST:PORT,N,I: got {args.coordinator!r} ({error})."
            ) from error
    elif args.distributed:
        jax.distributed.initialize()


@dataclass(frozen=True)
class _Fitted:
    """Turn pictures of any size into the model's units."""

    shape: tuple[int, int, int]
    preprocessing: Any

    def __call__(self, load: Any) -> np.ndarray:
        return self.preprocessing(fit_picture(load(), self.shape)[None])[0]


def source_of(args: argparse.Namespace, model: Any, shape: tuple[int, int, int]) -> Source:
    """Return IMAGES, read one at a time; a folder with its subfolders."""
    prepare = preprocessing(args, model)
    if len(args.images) == 1 and Path(args.images[0]).is_dir():
        source = open_source(args.images[0], image_shape=shape, preprocess=prepare)
        elements: list[Any] = list(source.elements)  # pyright: ignore
        read, names, units = source.read, source.names or (), source.units
    else:
        entries: list[Entry] = [e for path in args.images for e in picture_entries(path)]
        elements, names = [load for _, _, load in entries], tuple(name for name, _, _ in entries)
        read = _Fitted(shape, prepare)
        units = f"{shape[0]}×{shape[1]}×{shape[2]}, x in [0, 1]: {prepare.describe()}"
    return Source(elements[: args.limit], read, names[: args.limit], units)


def on_error_of(images: Sequence[str]) -> OnError:
    """A folder may hold a file that is no image; one that was named must be one."""
    return "skip" if any(Path(path).is_dir() for path in images) else "raise"


def _kept(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        if text.startswith("top"):
            return {"top": int(text[3:])}
        return {"classes": [int(part) for part in text.split(",")]}
    except ValueError:
        raise ValueError(f"`--keep` must be I,J,… or topK: got {text!r}.") from None


def tell(stored: Stored) -> None:
    """Print how far a store is, and its bad images."""
    table(stored.url, ["", ""], list(_facts(stored)))
    tell_bad(stored.errors)


def tell_bad(errors: Sequence[ImageError]) -> None:
    """Print the bad images of a store."""
    if errors:
        table("Bad images", ["image", "name", "why"], [list(e) for e in errors[:SHOWN]])
    if len(errors) > SHOWN:
        say(f"and {len(errors) - SHOWN} more")


def _facts(stored: Stored) -> Iterator[tuple[str, str]]:
    run, done = stored.identity, int(stored.done.sum())
    yield "images", f"{done:,} of {len(stored):,} done ({100 * done / len(stored):.1f} %)"
    yield "bad", f"{len(stored.errors):,}"
    yield "in use by", in_use(connect(stored.url)) or "nobody"
    yield "model", f"{run['model']['name']} {run['model']['fingerprint'][:12]}"
    if isinstance(stored, StoredOcclusion):
        yield "positions", str(stored.grid)
        yield "fill", f"{run['fill']['name']} {run['fill']['values'] or ''}".strip()
    elif isinstance(stored, StoredAttribution):
        yield "maps", ", ".join(stored.maps)
        yield "methods", ", ".join(run["methods"].values())
    else:
        yield "maps", ", ".join(stored.methods)
        yield "metrics", ", ".join(run["metrics"].values())
        yield "target", "predicted" if run["target"] is None else str(run["target"])
        yield "seed", str(run["seed"])
    yield "images are", run["source"]["units"]
    yield "program", ", ".join(f"{key} {value}" for key, value in run["program"].items())
    asked = {k: v for k, v in run.get("approximation", {}).items() if v is not None}
    if asked:
        yield "approximate", ", ".join(f"{key} {value}" for key, value in asked.items())
    yield "versions", ", ".join(f"{key} {value}" for key, value in run["versions"].items())


class _Exported(NamedTuple):
    """A heatmap (H, W), what is told of it, the clean score, what its scale is called, and whether
    zero is its middle."""

    values: np.ndarray
    facts: dict[str, Any]
    clean: float
    label: str
    signed: bool | None


def _heatmaps(stored: Any, image: int, args: argparse.Namespace) -> Iterator[_Exported]:
    """Yield what a store has of one image: a heatmap of scores, or every map of its methods."""
    if isinstance(stored, StoredOcclusion):
        target = stored.predicted_class(image) if args.target is None else args.target
        kept = args.kept
        own = kept[image] if kept is not None and kept.ndim == 2 else kept
        at, occ = _kept_index(own, image, target), stored[image]
        values = occ.heatmap(at, args.score, args.reduce)
        score = args.score or (stored.reading or Reading()).score
        facts = _facts_of(image, args, target, {"score": score}, values)
        signed = True if score.endswith("drop") else None
        yield _Exported(values, facts, float(occ.base[at]), SCORE_NAMES[score], signed)
        return
    for method, result in stored[image].items():
        target = int(np.asarray(result.target))
        values = result.heatmap()
        facts = _facts_of(image, args, target, {"map": method}, values)
        yield _Exported(values, facts, float(np.asarray(result.base)[target]), method, True)


def _facts_of(
    image: int,
    args: argparse.Namespace,
    target: int,
    of: dict[str, str],
    values: np.ndarray,
) -> dict[str, Any]:
    """Say what a heatmap is; `of` holds its score or its method."""
    name, known = args.names[image] if args.names else "", values[np.isfinite(values)]
    words = [f"{image:06d}", *([Path(name).stem] if name else [])]
    words += [of["map"].replace(", ", "-")] if "map" in of else []
    return {
        "image": image,
        "name": name,
        **of,
        "class": target,
        "class name": class_name(target, args.class_names) if args.class_names else "",
        "least": float(known.min()) if known.size else None,
        "greatest": float(known.max()) if known.size else None,
        "file": f"{file_name('-'.join(words), args.taken)}.{'png' if args.png else 'npz'}",
    }


def _draw(folder: Path, exported: _Exported, photo: np.ndarray | None) -> None:
    """Draw a heatmap with its scale, its class and its photograph if there is one."""
    facts = exported.facts
    called = facts["class name"] or f"class {facts['class']}"
    figure = plot.heatmap(
        exported.values,
        image=photo,
        signed=exported.signed,
        label=exported.label,
        titles=[f"{called}: {exported.clean:.3g}"],
        title=Path(facts["name"]).name or f"image {facts['image']}",
    )
    note = {"jaxviz": json.dumps(facts, ensure_ascii=False), "Software": None}
    figure.savefig(folder / facts["file"], metadata=note)


def _names_and_target(stored: StoredOcclusion, args: argparse.Namespace) -> Sequence[str] | None:
    """Return the names of the classes, and make the target that --target names a number."""
    names, classes = read_class_names(args.classes), stored.base.shape[-1]
    check_class_names(args.classes, names, classes)
    names = names or stored.class_names
    if args.target is not None:
        number = args.target.lstrip("-").isdigit()
        args.target = int(args.target) if number else by_name(args.target, names)
    return names


def _kept_index(kept: np.ndarray | None, image: int, target: int) -> int:
    """Return where a class lies among those that the store keeps of an image; None: all."""
    if kept is None:
        return target
    if target not in kept:
        raise ValueError(
            f"`--target` must be a class that the store keeps of image {image}: got {target}, kept"
            f" are {', '.join(map(str, kept))}."
        )
    return kept.tolist().index(target)
