"""`jaxviz judge`: maps of many images measured into a store, and the table of one."""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import Any, get_args

import numpy as np

from jaxviz._choices import JudgedBy
from jaxviz._files import whole
from jaxviz.cli.inputs import (
    before_softmax,
    class_count,
    input_shape,
    load_model,
    read_class_names,
)
from jaxviz.cli.methods import check_methods, method_of
from jaxviz.cli.output import say, table
from jaxviz.cli.stores import on_error_of, source_of, tell_bad
from jaxviz.metrics.comparison import Comparison
from jaxviz.metrics.judge import NAMED
from jaxviz.perturbation import fills
from jaxviz.scale.judge import judge_dataset
from jaxviz.scale.judged import StoredComparison, open_comparison
from jaxviz.scale.reader import open_store
from jaxviz.scoring.targets import by_name

DEFAULT = ("grad_cam", "integrated_gradients", "occlusion")


def judge(args: argparse.Namespace) -> int:
    """Judge maps into the store, if there is a model, and print its table; 130 if interrupted."""
    if args.model is None:
        stored = open_comparison(args.store)
    else:
        if not args.images:
            raise ValueError("`judge` needs images: give IMAGES behind MODEL.")
        try:
            stored = _judge(args)
        except KeyboardInterrupt:
            say(f"interrupted; what was finished is in {args.store}: the same command goes on.")
            return 130
    found = stored.table()
    if args.json is not None:
        with whole(args.json) as part:
            part.write_text(json.dumps(found.to_dict()) + "\n")
    _print(stored, found)
    return 0


def _judge(args: argparse.Namespace) -> StoredComparison:
    model = load_model(args.model, args.weights)
    shape = input_shape(model, args.size)
    names = read_class_names(args.classes) or model.class_names
    class_count(model.output_shape)
    target: Any = None
    if args.target != "predicted":
        number = args.target.lstrip("-").isdigit()
        target = int(args.target) if number else by_name(args.target, names)
    return judge_dataset(
        before_softmax(model) if args.logits else model,
        source_of(args, model, shape),
        args.store,
        maps=_maps(args),
        metrics=_metrics(args),
        target=target,
        floors=not args.no_floors,
        seed=args.seed,
        image_shape=shape,
        batch_size=args.batch_size or "auto",
        chunk=args.chunk or "auto",
        share=args.share,
        on_error=args.on_error or on_error_of(args.images),
        log=args.log,
    )


def _maps(args: argparse.Namespace) -> dict[str, Any]:
    """The methods of --method, and the files of --maps."""
    methods = args.method
    if methods is None:
        methods = () if args.maps else DEFAULT
    check_methods(methods, args.layer)
    found: dict[str, Any] = {name: method_of(name, args.layer) for name in methods}
    for name, file in args.maps:
        found[name] = _read_maps(name, file)
    return found


def _read_maps(name: str, file: str) -> Any:
    if not file.endswith(".npy"):
        return open_store(file)
    try:
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ValueError(f"`--maps` {name}: {file} cannot be read as an array: {error}.") from error


def _metrics(args: argparse.Namespace) -> dict[str, Callable[..., Any]]:
    known = get_args(JudgedBy)
    options: dict[str, Any] = {"steps": args.steps}
    if isinstance(args.fill, str) and args.fill.startswith("blur:"):
        options["fill"] = fills.blur(float(args.fill.removeprefix("blur:")))
    else:
        options["fill"] = args.fill
    found = {}
    for name in args.metric:
        if name not in known:
            raise ValueError(f"`--metric` must hold some of {', '.join(known)}: got {name!r}.")
        takes = signature(NAMED[name]).parameters
        given = {k: v for k, v in options.items() if v is not None and k in takes}
        found[name] = partial(NAMED[name], **given) if given else NAMED[name]
    return found


def _print(stored: StoredComparison, found: Comparison) -> None:
    rows = [[method, *cells] for method, cells in found.cells().items()]
    done, count = int(stored.done.sum()), len(stored)
    title = f"{stored.url}: {done:,} of {count:,} images done, mean ± standard error"
    table(title, ["", *found.heads()], rows)
    for metric, better in zip(found.metrics, found.better, strict=True):
        if better and len(found.methods) > 1 and found.values.shape[-1] > 1:
            best, rows = _against_best(found, metric, better)
            columns = [f"{best} − …", "difference", "95 % interval", "told apart", "images"]
            table(f"{metric}: {best} and the others, image by image", columns, rows)
    tell_bad(stored.errors)


def _against_best(found: Comparison, metric: str, better: str) -> tuple[str, list[list[Any]]]:
    """The best method, and by how much it differs from each other one."""
    means = found.mean[:, found.metrics.index(metric)] * (1 if better == "up" else -1)
    best = found.methods[int(np.argmax(np.nan_to_num(means, nan=-np.inf)))]
    return best, list(_differences(found, metric, best))


def _differences(found: Comparison, metric: str, best: str) -> Iterator[list[Any]]:
    for other in found.methods:
        if other == best:
            continue
        mean, low, high, n = found.difference(best, other, metric)
        known = not math.isnan(low)
        apart = ("yes" if low > 0 or high < 0 else "no") if known else "undefined"
        yield [other, f"{mean:.3g}", f"{low:.3g} to {high:.3g}" if known else "", apart, n]
