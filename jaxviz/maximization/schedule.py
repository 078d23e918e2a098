"""Say when what happens in a run of `maximize`: pure integers."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from jaxviz.jaxpr._jax import platform_of
from jaxviz.maximization.problem import Terms

_LOOK_EVERY = 25
_SCAN_STEPS = 64


class Schedule(NamedTuple):
    """When what happens in a run; the fields are arguments of `maximize`."""

    steps: int
    loop: str
    redirect_steps: int
    snapshot_every: int | None
    patience: int | None
    callback: Callable[[int, jax.Array, Terms], object] | None


class Segment(NamedTuple):
    """Steps between which nothing is due.

    Attributes:
        begin: how many steps are done before it.
        end: how many are done after it.
        redirects: whether dead ReLUs may be redirected; then it is a single step.
        compiled: whether its steps run in one compiled loop.
        snapshot: whether the images after it are kept.
        look: whether the terms are fetched after it and searched for a fault, and whether all
            images have stopped.
    """

    begin: int
    end: int
    redirects: bool
    compiled: bool
    snapshot: bool
    look: bool


def segments(schedule: Schedule) -> Iterator[Segment]:
    """Cut a run where something is due.

    A step that may be redirected, or after which the callback is called, is a segment of its own.
    Otherwise a segment that is driven from the host ends with the next snapshot or look. A compiled
    one ends at a multiple of a fixed number of steps, since each length compiles by itself; the
    looks wait for its end.
    """
    steps, every = schedule.steps, schedule.snapshot_every
    on_cpu = platform_of() == "cpu"
    compiled = schedule.loop == "scan" or (schedule.loop == "auto" and not on_cpu)
    done = looked = 0
    while done < steps:
        redirects = done < schedule.redirect_steps
        if schedule.callback is not None or done < schedule.redirect_steps:
            end = done + 1
        elif compiled:
            end = _next_multiple(done, every or _SCAN_STEPS)
        else:
            end = min(looked + _LOOK_EVERY, _next_multiple(done, every or steps))
        end = min(end, steps)
        snapshot = every is not None and end % every == 0
        look = end - looked >= _LOOK_EVERY or end == steps
        # A scan of one step would be compiled for its own sake.
        yield Segment(done, end, redirects, compiled and end - done > 1, snapshot, look)
        done, looked = end, end if look else looked


def _next_multiple(done: int, every: int) -> int:
    return (done // every + 1) * every
