"""Several processes on one run: who does what, agreed on once, at the start.

Afterwards no process waits for another: each computes and writes its own chunks. So one that dies
takes nothing with it but the chunks under way, and the next run shares out what is left.
"""

import json
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Share = tuple[int, int]


def check_share(share: Share | None) -> Share:
    """Return (i, n), this process's number and how many there are.

    Args:
        share: (i, n), 0 ≤ i < n; None: as `jax.distributed` tells, (0, 1) without it.

    Raises:
        ValueError: i is not below n.
    """
    if share is None:
        return jax.process_index(), jax.process_count()
    try:
        index, count = (operator.index(part) for part in share)
    except (TypeError, ValueError):
        index, count = 0, 0
    if not 0 <= index < count:
        raise ValueError(f"`share` must be (i, n), whole numbers with 0 ≤ i < n: got {share!r}.")
    return index, count


def first_process_first(act: Callable[[], Any]) -> Any:
    """Let process 0 of `jax.distributed` act, and give all processes what it found.

    Args:
        act: returns what JSON can hold.

    Returns:
        What `act` returned on process 0.

    Raises:
        ValueError: `act` raised on process 0, which raises that itself.
    """
    if jax.process_count() == 1:
        return act()
    failure: Exception | None = None
    answer: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            answer = {"result": act()}
        except Exception as error:
            failure = error
            answer = {"failure": str(error)}
    told = json.loads(_broadcast(json.dumps(answer).encode()))
    if failure is not None:
        raise failure
    if "failure" in told:
        raise ValueError(f"process 0 cannot start: {told['failure']}")
    return told["result"]


def _broadcast(message: bytes) -> bytes:
    """Give all processes the message of process 0: first its length, then its bytes."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    length = int(broadcast_one_to_all(np.array(len(message), np.int32)))
    room = np.zeros(length, np.uint8)
    if jax.process_index() == 0:
        room[:] = np.frombuffer(message, np.uint8)
    return np.asarray(broadcast_one_to_all(room)).astype(np.uint8).tobytes()
