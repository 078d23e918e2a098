"""Programs are compiled once and found again, fit their budget, and halve when memory runs out."""

import dataclasses
from math import ceil, prod
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial
from scorers import convolutional

from jaxviz import fills
from jaxviz.jaxpr.cache import clear_caches
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.segments import occlude_segments
from jaxviz.perturbation.grid import make_grid
from jaxviz.perturbation.occluders import PatchOccluder
from jaxviz.scoring import batches
from jaxviz.scoring import compiled as programs
from jaxviz.scoring.evaluators import Dense, Incremental
from jaxviz.scoring.scorer import split

IMAGES = np.random.default_rng(0).uniform(size=(40, 8, 8, 1)).astype(np.float32)
IMAGES[:, 0, 0], IMAGES[:, 0, 1] = 0, 1
TILES = dict(patch=2)  # 16 positions and the clean image: 17 rows


@pytest.fixture
def f():
    """A scorer that no other test has compiled; its weights are arguments."""
    clear_caches()
    fills.constant(0.5)  # a number's conversion is compiled once in a process
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3)), jnp.float32)
    return Partial(lambda weight, images: images.reshape(len(images), -1) @ weight, weight)


def test_a_run_compiles_two_programs_whatever_its_last_chunk(f, compilations):
    occ = occlude(f, IMAGES[:3], **TILES, batch_size=7)
    assert compilations.count == 3  # one prepares an image, one scores a chunk, one checks `f`
    assert occ.scores.shape == (3, 4, 4, 3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [TILES, dict(patch=4)], ids=["17 rows", "5 rows"])
@pytest.mark.parametrize("counts", [(1, 2, 5, 7), (7, 1)])
def test_one_compilation_serves_any_number_of_images(f, compilations, options, counts):
    occlude(f, IMAGES[: counts[0]], **options)
    assert compilations.count == 3
    compilations.start()
    for count in counts[1:]:
        occlude(f, IMAGES[:count], **options)
        occlude(f, IMAGES[0], **options)
    assert compilations.count == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_a_second_call_compiles_nothing(f, compilations, method):
    occ = occlude(f, IMAGES[:2], **TILES, fill=0.0, method=method)
    trained = Partial(f.func, 2 * f.args[0])
    compilations.start()
    assert np.array_equal(occ.scores, occlude(f, IMAGES[:2], **TILES, method=method).scores)
    other = occlude(trained, IMAGES[:2], **TILES, fill=0.5, method=method)
    assert compilations.count == 0
    np.testing.assert_allclose(other.base, 2 * occ.base, rtol=1e-6)


def test_segments_are_compiled_once_too(f, compilations):
    labels = np.arange(64).reshape(8, 8) // 16
    occlude_segments(f, IMAGES[:2], labels)
    compilations.start()
    occlude_segments(f, IMAGES[:5], labels.T)
    assert compilations.count == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [lambda: fills.blur(1.0), lambda: fills.noise(jax.random.key(0)), lambda: "mean"]
)
def test_equal_fills_share_a_program(f, compilations, make):
    occlude(f, IMAGES[:1], **TILES, fill=make())
    compilations.start()
    occlude(f, IMAGES[:1], **TILES, fill=make())
    assert compilations.count == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.default_matmul_precision("float32"),
        lambda: jax.numpy_dtype_promotion("standard"),
        lambda: jax.numpy_rank_promotion("allow"),
        lambda: jax.default_device(jax.devices()[3]),
    ],
    ids=["precision", "dtypes", "ranks", "device"],
)
def test_other_settings_are_another_program(f, setting):
    occlude(f, IMAGES[:1], **TILES)
    with setting():
        known = programs.programs_of(task_of(f))
        assert not known.compiled
        occlude(f, IMAGES[:1], **TILES)
        assert known.compiled


@pytest.fixture
def by_sixteens(monkeypatch):
    """Small images come in these batches, whatever the version of JAX prefers."""
    monkeypatch.setattr(batches, "SMALL", dict.fromkeys(batches.SMALL, (16, 48, 8)))


@pytest.fixture
def clock(monkeypatch):
    """A clock on which compiling and measuring take no time, unless `clock.step` says so."""
    now = SimpleNamespace(time=0.0, step=0.0)

    def tell():
        now.time += now.step
        return now.time

    monkeypatch.setattr(programs, "perf_counter", tell)
    return now


def test_a_trial_takes_the_fastest_of_a_few_sizes_once(f, compilations, monkeypatch):
    timed = []

    def seconds(task, program):
        timed.append(prod(program.block))
        return abs(prod(program.block) - 9)  # the second size tried

    monkeypatch.setattr(programs, "_seconds_per_row", seconds)
    monkeypatch.setattr(batches, "SMALL", dict.fromkeys(batches.SMALL, (8, 16, 32)))
    options = {**TILES, "batch_size": "fastest", "method": "dense"}
    occlude(f, IMAGES[:3], **options)
    assert timed == [6, 9, 17]
    compilations.start()
    told = []
    for count in (3, 9, 1):
        occlude(f, IMAGES[:count], **options, progress=lambda done, total: told.append(done))
    assert compilations.count == 0 and timed == [6, 9, 17] and told[0] == 8


def test_without_being_asked_nothing_is_tried(f, by_sixteens, monkeypatch):
    monkeypatch.setattr(programs, "_seconds_per_row", None)  # would be called
    program = programs.choose(task_of(f))
    assert prod(program.block) == 9, "17 rows in two blocks of at most 16"


@pytest.mark.parametrize(
    "shape, windows, whole", [((127, 127), 16, 16), ((128, 128), 8, 4), ((64, 512), 8, 4)]
)
def test_large_images_come_in_smaller_batches(by_sixteens, shape, windows, whole):
    task = task_of(lambda x: x.mean((1, 2)))
    task = dataclasses.replace(task, images=np.zeros((1, *shape, 1), np.float32))
    evaluators = Incremental((2, 2), (2, 2), (0, 0)), Dense()
    batches = [programs._batches(task, evaluator) for evaluator in evaluators]
    assert [batch[0] for batch in batches] == [windows, whole]


def test_large_images_come_by_twos_where_channels_are_convolved_alone():
    def f(x):
        kernel, numbers = jnp.ones((3, 3, 1, 2)), ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=2
        )
        return x.mean((1, 2))

    task = dataclasses.replace(task_of(f), images=np.zeros((1, 128, 128, 2), np.float32))
    assert programs._batches(task, Dense())[0] == 2


@pytest.mark.slow
def test_only_the_best_evaluator_is_tried_at_other_sizes(f, monkeypatch):
    timed = []

    def seconds(task, program):
        timed.append(program.evaluator)
        return 1.0 if program.evaluator == Dense() else 2.0

    monkeypatch.setattr(programs, "_seconds_per_row", seconds)
    incremental = Incremental((2, 2), (2, 2), (0, 0))
    task = dataclasses.replace(task_of(f), evaluators=(incremental, Dense()))
    assert programs.choose(task, "fastest").evaluator == Dense()
    assert timed == [incremental, Dense(), Dense(), Dense()]


def test_the_trial_measures_seconds_per_row(f, clock):
    program = programs.choose(task_of(f))
    clock.step = 0.25
    assert programs._seconds_per_row(task_of(f), program) == 0.25 / prod(program.block)


def test_what_is_kept_holds_no_array_of_the_scorer_and_is_bounded(f, monkeypatch):
    large = np.ones((64, 1000), np.float32)
    task = task_of(lambda images: images.reshape(len(images), -1) @ large)
    program = programs.choose(task)
    assert [a.shape for a in task.arguments(program.rows)[0]] == [large.shape]
    assert program.held < large.nbytes
    programs.choose(task_of(f))
    assert len(programs._programs) == 2
    monkeypatch.setattr(programs._programs, "budget", programs.LEAST_BYTES)
    programs.programs_of(task_of(f))
    assert len(programs._programs) == 1 and programs.programs_of(task_of(f)).compiled


def task_of(f, **options):
    """The task of tiles on forty images."""
    grid = make_grid((8, 8), **TILES)
    occluder = PatchOccluder(fills.constant(0.5), grid.patch)
    starts = grid.starts.reshape(-1, 2)
    return programs.Task(split(f), (Dense(),), occluder, IMAGES, starts, **options)


@given(st.integers(1, 500), st.integers(1, 300))
def test_blocks_waste_less_than_a_row_per_chunk(rows, batch):
    task = dataclasses.replace(task_of(lambda x: x), positions=np.zeros((rows, 2), np.int32))
    block = programs._cut(task, batch)
    chunks = ceil(task.rows / block.positions)
    assert 1 <= prod(block) <= batch
    assert chunks == ceil(task.rows / batch) and chunks * block.positions - task.rows < chunks
    assert programs._cut(task, prod(block)) == block


def test_a_large_batch_size_computes_no_more_than_there_is(f):
    task = dataclasses.replace(task_of(f), images=IMAGES[:2])
    assert prod(programs.choose(task, 10_000).block) == task.total_rows


@pytest.mark.slow
def test_a_budget_is_respected():
    f = convolutional(size=(8, 8))
    free = programs.choose(task_of(f, budget=2**40))
    tight = programs.choose(task_of(f, budget=free.bytes // 2))
    assert tight.bytes <= free.bytes // 2 and prod(tight.block) < prod(free.block)


@pytest.mark.slow
def test_a_budget_is_respected_after_a_trial_without_one():
    f = convolutional(size=(8, 8), classes=4)
    free = programs.choose(task_of(f), "fastest")
    tight = programs.choose(task_of(f, budget=free.bytes // 2), "fastest")
    assert tight.bytes <= free.bytes // 2


@pytest.mark.slow
def test_without_a_budget_it_is_a_share_of_what_is_free(monkeypatch):
    f = convolutional(size=(8, 8), classes=5)
    free = programs.choose(task_of(f))
    monkeypatch.setattr(programs, "memory_budget", lambda device: free.bytes // 2)
    assert programs.choose(task_of(f)) is free  # so little is always there
    monkeypatch.setattr(programs, "ALWAYS_FREE", 0)
    assert programs.choose(task_of(f)).bytes <= free.bytes // 2
    monkeypatch.setattr(programs, "memory_budget", lambda device: 0)
    assert prod(programs.choose(task_of(f)).block) == 1  # it is a wish, not a limit


@pytest.mark.slow
def test_a_budget_below_one_image_is_refused(f):
    with pytest.raises(MemoryError, match="`memory` must hold at least one image's forward pass"):
        occlude(f, IMAGES[0], **TILES, memory=10)


@pytest.mark.slow
def test_a_chunk_within_a_budget_scores_the_same():
    f = convolutional(size=(8, 8), classes=6)
    enough = programs.choose(task_of(f)).bytes // 2
    ours, wanted = (occlude(f, IMAGES[:2], **TILES, memory=m) for m in (enough, None))
    np.testing.assert_allclose(ours.scores, wanted.scores, rtol=1e-5)


class Exhausted:
    """A device whose memory holds `room` rows: what is larger fails, in one of three places."""

    def __init__(self, monkeypatch, room, where="evaluate", message="RESOURCE_EXHAUSTED: too much"):
        self.room, self.where, self.message = room, where, message
        self.build = programs._build
        self.calls = 0
        monkeypatch.setattr(programs, "_build", self)

    def __call__(self, task, evaluator, block):
        if self.where == "build" and prod(block) > self.room:
            raise jax.errors.JaxRuntimeError(self.message)
        program = self.build(task, evaluator, block)

        def evaluate(*arguments):
            self.calls += 1
            late = self.where == "evaluate" or self.calls > 2  # after a chunk
            if late and self.where != "build" and prod(block) > self.room:
                raise jax.errors.JaxRuntimeError(self.message)
            return program.evaluate(*arguments)

        return dataclasses.replace(program, evaluate=evaluate)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["build", "evaluate", "later"])
def test_out_of_memory_halves_the_chunk_and_says_so(f, by_sixteens, monkeypatch, where):
    wanted = occlude(Partial(lambda w, x: f(x) + 0 * w, 1.0), IMAGES[:2], **TILES)
    Exhausted(monkeypatch, 2, where)
    told = []
    with pytest.warns(UserWarning, match="out of memory at batch_size") as warned:
        occ = occlude(
            f, IMAGES[:2], **TILES, progress=lambda done, total: told.append((done, total))
        )
    sizes = [
        str(warning.message).removeprefix("out of memory at batch_size=") for warning in warned
    ]
    assert sizes == ["9: going on with 4.", "4: going on with 2."]
    np.testing.assert_array_equal(occ.scores, wanted.scores)
    np.testing.assert_array_equal(occ.base, wanted.base)
    assert not occ.partial and told[-1] == (32, 32)


def test_what_ran_out_of_memory_once_is_not_tried_again(f, by_sixteens, monkeypatch):
    Exhausted(monkeypatch, 4)
    with pytest.warns(UserWarning, match="out of memory"):
        occlude(f, IMAGES[:2], **TILES)
    occlude(f, IMAGES[:2], **TILES)


def test_a_size_that_does_not_fit_loses_the_trial(f, by_sixteens, monkeypatch):
    Exhausted(monkeypatch, 8)
    occlude(f, IMAGES[:3], **TILES, batch_size="fastest")


def test_when_not_even_one_image_fits_it_is_an_error(f, monkeypatch):
    Exhausted(monkeypatch, 0)
    with pytest.warns(UserWarning, match="going on with 1"):
        with pytest.raises(MemoryError, match="not even one image at a time fits into memory"):
            occlude(f, IMAGES[0], **TILES, batch_size=2)


def test_other_errors_of_the_device_pass_through(f, monkeypatch):
    Exhausted(monkeypatch, 2, message="INTERNAL: broken")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: broken"):
        occlude(f, IMAGES[0], **TILES)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: broken"):
        occlude(f, IMAGES[0], **TILES, batch_size="fastest")


@pytest.mark.parametrize(("batch_size", "rows"), [(5, 5), ("auto", 10)])
def test_a_repeated_run_traces_the_scorer_once_and_is_never_out_of_date(batch_size, rows):
    scale, traced = [1.0], []

    def f(images):
        traced.append(images.shape)
        return scale[0] * images.mean((1, 2))

    image = np.ones((6, 6, 2), np.float32)
    options = {"patch": 2, "method": "dense", "batch_size": batch_size}
    first = occlude(f, image, **options)
    traced.clear()
    again = occlude(f, image, **options)
    assert traced == [(rows, 6, 6, 2)]
    np.testing.assert_array_equal(again.scores, first.scores)
    scale[0] = 2.0
    np.testing.assert_allclose(occlude(f, image, **options).scores, 2 * first.scores)
