"""`jaxviz attribute --store`: the maps of many images, into a store."""

import argparse
from collections.abc import Sequence
from typing import Any

from jaxviz.cli.inputs import (
    before_softmax,
    check_class_names,
    class_count,
    input_shape,
    load_model,
    read_class_names,
)
from jaxviz.cli.methods import check_methods, method_of
from jaxviz.cli.occlude import check_target, split_targets
from jaxviz.cli.output import say
from jaxviz.cli.stores import on_error_of, source_of, tell
from jaxviz.scale.attribute import attribute_dataset
from jaxviz.scoring.targets import by_name


def attribute_store(args: argparse.Namespace) -> int:
    """Explain the images into a store; 130 if interrupted."""
    check_methods(args.method, args.layer)
    model = load_model(args.model, args.weights)
    shape = input_shape(model, args.size)
    names = read_class_names(args.classes) or model.class_names
    check_class_names(args.classes, names, class_count(model.output_shape))
    targets = [_target(word, names) for word in split_targets(args.target, names)]
    for target in targets:
        check_target(target, model.output_shape)
    try:
        stored = attribute_dataset(
            before_softmax(model) if args.logits else model,
            source_of(args, model, shape),
            args.store,
            methods={name: method_of(name, args.layer) for name in args.method},
            target=targets,
            image_shape=shape,
            batch_size=args.batch_size or "auto",
            chunk=args.chunk or "auto",
            stored=args.stored,
            share=args.share,
            on_error=args.on_error or on_error_of(args.images),
            log=args.log,
        )
    except KeyboardInterrupt:
        say(f"interrupted; what was finished is in {args.store}: the same command goes on.")
        return 130
    tell(stored)
    return 0


def _target(word: str, names: Sequence[str] | None) -> Any:
    """Return the class that one word of --target names; None: each image's own."""
    if word == "predicted":
        return None
    if word.lstrip("-").isdigit():
        return int(word)
    if word == "true" or names is None:
        raise ValueError(
            '`--target` must be a number, "predicted" or a name that --classes holds, with --store:'
            f" got {word!r}."
        )
    return by_name(word, names)
