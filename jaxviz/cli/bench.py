"""`jaxviz bench`: measure this machine, and keep every row as soon as there is one."""

import argparse

from jaxviz._files import whole
from jaxviz.bench.summary import summary
from jaxviz.bench.table import Report, markdown, plot, run_bench
from jaxviz.cli.output import say, write_json


def bench(args: argparse.Namespace) -> int:
    """Measure this machine, print the table, and write what was asked for; 130 if interrupted."""
    for name in ("json", "markdown", "png"):
        file = getattr(args, name)
        if file and not file.parent.is_dir():
            raise ValueError(f"`--{name}` must name a file in a folder that exists: got {file}.")
    kept: list[Report] = []

    def keep(report: Report) -> None:
        kept[:] = [report]
        if args.json:
            with whole(args.json) as part:
                write_json(part, report)
        if args.markdown:
            with whole(args.markdown) as part:
                part.write_text(markdown(report) + "\n", encoding="utf-8")

    which = {"models": args.models, "methods": args.methods, "dtype": args.dtype}
    try:
        keep(run_bench(quick=args.quick, **which, tell=say, keep=keep))
    except KeyboardInterrupt:
        if not kept:
            raise
        return 130
    finally:
        if kept:
            say(summary(kept[0]))
            if args.png:
                plot(kept[0], args.png)
    return 0
