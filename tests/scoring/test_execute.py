"""Every row is scored once, in whatever blocks; an interruption gives back what is finished."""

import signal
import subprocess
import sys
from collections import deque
from dataclasses import replace

import jax
import numpy as np
import pytest
from scorers import integers, weighted_sums

from jaxviz.occlusion.occlude import occlude
from jaxviz.perturbation.fills import make_fill
from jaxviz.perturbation.grid import make_grid
from jaxviz.perturbation.occluders import PatchOccluder
from jaxviz.scoring.compiled import choose, halve
from jaxviz.scoring.execute import Blocks, Chunk
from jaxviz.scoring.task import make_task

IMAGES = integers((5, 6, 8, 2))
F = weighted_sums((6, 8, 2))
TILES = dict(patch=2, fill=3.0)  # 12 positions and the clean image: 13 rows


def a_task():
    occluder = PatchOccluder(make_fill(3.0), (2, 2))
    starts = make_grid((6, 8), patch=2).starts.reshape(-1, 2)
    return make_task(F, IMAGES, occluder, starts)


@pytest.fixture(scope="module")
def everything():
    return occlude(F, IMAGES, **TILES)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4, 13, 30, 65, 1000])
def test_blocks_cover_every_row_of_every_image(everything, batch_size):
    told = []
    occ = occlude(
        F, IMAGES, **TILES, batch_size=batch_size, progress=lambda *done: told.append(done)
    )
    np.testing.assert_array_equal(occ.scores, everything.scores)
    np.testing.assert_array_equal(occ.base, everything.base)
    done = [0, *(done for done, _ in told)]
    assert done[-1] == 60 and all(total == 60 for _, total in told)
    assert all(0 < step <= max(batch_size, 1) for step in np.diff(done))


def test_it_is_silent_by_default(capfd):
    occlude(F, IMAGES, **TILES)
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_drawn_on_request(capfd):
    occlude(F, IMAGES, **TILES, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "60/60" in err


@pytest.mark.parametrize("at", [4, 12, 24, 37, 60])
def test_an_interruption_gives_back_what_is_finished(everything, at):
    def stop(done, total):
        if done >= at:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted: .* of 60 positions are scored") as told:
        occ = occlude(F, IMAGES, **TILES, batch_size=5, progress=stop)
    assert occ.partial and repr(occ).endswith(", interrupted)") and told[0].filename == __file__
    known = ~np.isnan(occ.scores)
    np.testing.assert_array_equal(occ.scores[known], everything.scores[known])
    some = ~np.isnan(occ.base)
    np.testing.assert_array_equal(occ.base[some], everything.base[some])
    count = int(known[..., 0].sum())
    assert count >= at and str(told[0].message).startswith(f"interrupted: {count} of 60")
    mapped = occ.grid.spread(np.where(known[..., 0], 1.0, np.nan), "cell")
    np.testing.assert_array_equal(
        np.isnan(occ.heatmap(0)), np.isnan(mapped) | np.isnan(occ.base[:, :1, None])
    )


def test_what_was_launched_is_not_lost():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        occ = occlude(F, IMAGES, **TILES, batch_size=5, progress=stop)
    assert (~np.isnan(occ.scores[..., 0])).sum() + 1 == 2 * 5  # one stored, one on its way


def test_an_interruption_before_the_first_block_is_one(monkeypatch):
    from jaxviz.scoring import execute as blocks

    def stop(*_):
        raise KeyboardInterrupt

    task = a_task()
    monkeypatch.setattr(blocks, "choose", stop)
    for run in (blocks.execute, lambda task: blocks.execute_in_rounds(task, [1], lambda *_: None)):
        with pytest.raises(KeyboardInterrupt):
            run(task)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize("counts", [[0], [1], [5], [2, 0, 3], [1, 4]])
def test_rounds_give_the_scores_of_the_positions_that_were_decided_on(batch, counts):
    from jaxviz.scoring import execute as blocks

    task, asked, told = a_task(), {}, []
    wanted = blocks.execute(task).values
    ends = 4 + np.cumsum([0, *counts])

    def then(n, number, values):
        assert not np.isnan(values).any() and len(values) == ends[number]
        some = (np.arange(counts[number]) * (n + 1) + n + number) % len(task.positions)
        asked.setdefault(n, []).extend(some)
        return task.positions[some]

    found = blocks.execute_in_rounds(
        replace(task, positions=task.positions[:3]),
        counts,
        then,
        batch_size=batch,
        progress=lambda done, total: told.append((done, total)),
    )
    assert not found.partial
    assert found.values.shape == (len(wanted), ends[-1], *wanted.shape[2:])
    np.testing.assert_array_equal(found.values[:, :4], wanted[:, :4])
    for n, positions in asked.items():
        np.testing.assert_array_equal(found.values[n, 4:], wanted[n, 1 + np.array(positions)])
    assert len(asked) == (len(wanted) if sum(counts) else 0)
    total = len(wanted) * (3 + sum(counts))
    assert told[-1] == (total, total) and [done for done, _ in told] == sorted({d for d, _ in told})


@pytest.mark.parametrize("batch", [1, 100])
def test_an_image_has_no_more_rounds_once_one_is_left_out(batch):
    from jaxviz.scoring import execute as blocks

    task, asked, told = a_task(), [], []
    wanted = blocks.execute(task).values

    def then(n, number, values):
        asked.append((n, number))
        return task.positions[:2] if number < n else None

    found = blocks.execute_in_rounds(
        task, [2] * 3, then, batch_size=batch, progress=lambda *at: told.append(at)
    )
    rounds = [min(n, 3) for n in range(len(wanted))]
    assert asked == [(n, k) for n, most in enumerate(rounds) for k in range(min(most + 1, 3))]
    for n, most in enumerate(rounds):
        again = np.tile(wanted[n, 1:3], (most, 1))
        expected = np.concatenate([wanted[n], again])
        np.testing.assert_array_equal(found.values[n, : len(expected)], expected)
        assert np.isnan(found.values[n, len(expected) :]).all()
    assert not found.partial and told[-1][0] == told[-1][1]


SCRIPT = """
import signal, warnings
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run behind &
import numpy as np
import jaxviz as jv

warnings.simplefilter("ignore")

def slowly(done, total):
    print(done, flush=True)
    if done >= 8:
        signal.pause()

images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
occ = jv.occlude(lambda x: x.mean((1, 2)), images, patch=2, batch_size=4, progress=slowly)
print(occ, np.isfinite(occ.scores).sum())
"""


@pytest.mark.slow
def test_a_real_ctrl_c_gives_back_what_is_finished():
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            if int(line) >= 8:
                break
        run.send_signal(signal.SIGINT)
        rest, _ = run.communicate()
    assert run.returncode == 0
    assert "2 images 8×8" in rest and ", interrupted)" in rest
    assert 7 <= int(rest.split()[-1]) < 32


def test_a_second_ctrl_c_is_obeyed(monkeypatch):
    from jaxviz.scoring import execute as blocks

    def stop(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(blocks.Blocks, "rest", lambda self: stop(0, 0))
    with pytest.raises(KeyboardInterrupt):
        occlude(F, IMAGES, **TILES, progress=stop)


@pytest.fixture
def two_chunks():
    """A compiled task, and two chunks of two images with room for their scores."""
    task = a_task()
    program = choose(task, 5)
    rooms = [np.full((2, 13, 3), np.nan, np.float32) for _ in range(2)]
    return task, program, [Chunk(IMAGES[2 * i : 2 * i + 2], rooms[i], i) for i in range(2)]


class Full:
    """A program on a device whose memory is full at the `at`-th block."""

    def __init__(self, program, at):
        self.program, self.at, self.calls = program, at, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == self.at:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: too much")
        return self.program.evaluate(*arguments)


@pytest.mark.parametrize("at", range(1, 13))
def test_chunks_are_complete_in_order_wherever_memory_ends(everything, two_chunks, at):
    task, program, chunks = two_chunks
    full = replace(program, evaluate=Full(program, at))
    blocks = Blocks(task, full, chunks, lambda task, program, error: choose(task, 3))
    stored = list(blocks)
    assert [block.chunk.label for block in stored if block.complete] == [0, 1]
    assert sum(block.positions for block in stored) == 4 * 12
    for chunk in chunks:
        some = slice(2 * chunk.label, 2 * chunk.label + 2)
        np.testing.assert_array_equal(chunk.values[:, 0], everything.base[some])
        wanted = everything.scores[some].reshape(2, 12, 3)
        np.testing.assert_array_equal(chunk.values[:, 1:], wanted)


def test_what_was_launched_before_an_error_of_the_images_is_stored(two_chunks):
    task, program, chunks = two_chunks

    def broken():
        yield chunks[0]
        raise ValueError("no image")

    blocks = Blocks(task, program, broken(), halve)
    with pytest.raises(ValueError, match="no image"):
        list(blocks)
    assert [block.complete for block in blocks.rest()][-1]
    assert np.isfinite(chunks[0].values).all()


class Interrupted(deque):
    """Blocks under way, of which Ctrl-C comes as one is taken off: before it, or after."""

    def __init__(self, at, after):
        super().__init__()
        self.at, self.after, self.calls = at, after, 0

    def popleft(self):
        self.calls += 1
        if self.calls == self.at:
            if self.after:
                super().popleft()
            raise KeyboardInterrupt
        return super().popleft()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("which", ["launched", "begun"])
@pytest.mark.parametrize("at", range(1, 7))
def test_ctrl_c_between_two_lines_mixes_no_chunks(everything, two_chunks, which, at, after):
    task, program, chunks = two_chunks
    blocks = Blocks(task, program, iter(chunks), halve)
    setattr(blocks, which, Interrupted(at, after))
    stored = []
    try:
        stored += blocks
    except KeyboardInterrupt:
        stored += blocks.rest()
    complete = [block.chunk.label for block in stored if block.complete]
    assert complete == sorted(set(complete))
    for chunk in chunks:
        images = slice(2 * chunk.label, 2 * chunk.label + 2)
        wanted = everything.scores[images].reshape(2, 12, 3)
        wanted = np.concatenate([everything.base[images, None], wanted], 1)
        done = ~np.isnan(chunk.values)
        assert done.all() or chunk.label not in complete
        np.testing.assert_array_equal(chunk.values[done], wanted[done])
