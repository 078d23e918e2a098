"""What a run takes, told beforehand; the times themselves are measured in benchmarks/."""

from math import ceil

import numpy as np
import pytest
from scale_run import SHAPE, images, scorer

from jaxviz.scale import estimate as module
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.estimate import estimate


def test_estimate_tells_what_the_run_does(tmp_path):
    told = estimate(scorer(), SHAPE, 10, patch=4, stride=2, stored="float16", probe_seconds=0.0)
    stored = occlude_dataset(
        scorer(), images(10), tmp_path / "o", patch=4, stride=2, stored="float16", progress=False
    )
    program = {"method": told.method, "batch": told.batch, "chunk": told.chunk}
    assert program == stored.identity["program"]
    assert told.positions == 10 * stored.grid.size
    assert told.stored == stored[:].scores.astype(np.float16).nbytes
    assert told.seconds > 0 and "positions" in str(told)


def test_a_fill_is_not_judged_by_images_that_are_made_up():
    assert estimate(scorer(), SHAPE, 3, patch=6, fill=127.5, probe_seconds=0.0).positions == 3 * 4


def test_operations_are_those_of_the_network():
    told = estimate(scorer(), SHAPE, 3, patch=4, method="dense", probe_seconds=0.0)
    convolution, dense = 2 * 9 * 8 * 120, 2 * 960 * 5
    assert told.positions == 3 * 9
    least = 3 * 10 * (convolution + dense)
    assert least <= told.operations <= 1.2 * least
    assert told.elsewhere(1e9, devices=4) == told.operations / 4e9


@pytest.fixture
def clock(monkeypatch):
    """Let a round of images take 1 s, each of its blocks 0.25 s, and the third round 9 s more."""
    now = 0.0

    def score(task, program, chunks, waits):
        nonlocal now
        for chunk in chunks:
            now += 1 + 0.25 * ceil(task.rows / program.block.positions) + 9 * (chunk.number == 2)
            yield chunk, None

    monkeypatch.setattr(module, "score", score)
    monkeypatch.setattr(module, "perf_counter", lambda: now)


@pytest.mark.parametrize("probe_seconds", [30.0, 300.0, 3000.0])
def test_time_of_an_image_is_that_of_its_blocks(clock, probe_seconds):
    told = estimate(
        scorer(),
        SHAPE,
        7,
        patch=4,
        stride=1,
        batch_size=2,
        method="dense",
        probe_seconds=probe_seconds,
    )
    assert told.image_seconds == pytest.approx(1 + 0.25 * 32)
    assert told.seconds == pytest.approx(7 * told.image_seconds)


def test_images_of_one_block_share_its_time(clock):
    told = estimate(scorer(), SHAPE, 7, patch=6, batch_size=10, method="dense", probe_seconds=60.0)
    assert told.positions == 7 * 4 and told.image_seconds == pytest.approx((1 + 0.25) / 2)


def test_fastest_may_be_asked_for():
    told = estimate(
        scorer(), SHAPE, 100, patch=4, stride=1, batch_size="fastest", probe_seconds=0.0
    )
    assert 7 <= told.batch <= 128


@pytest.mark.slow
def test_wrong_count_is_refused():
    with pytest.raises(ValueError, match="`n_images` must be a whole number from 1"):
        estimate(scorer(), SHAPE, 0, patch=4)
