"""Segments of a run: they join up, and each thing happens when it is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxviz.maximization.schedule import Schedule, segments

counts = st.integers(1, 90)


@st.composite
def schedules(draw):
    return Schedule(
        steps=draw(st.integers(1, 300)),
        loop=draw(st.sampled_from(["auto", "host", "scan"])),
        redirect_steps=draw(st.integers(0, 40)),
        snapshot_every=draw(st.none() | counts),
        patience=draw(st.none() | counts),
        callback=draw(st.sampled_from([None, print])),
    )


@given(schedules())
def test_segments_join_up_and_leave_nothing_due_inside(schedule):
    found = list(segments(schedule))
    ends = [segment.end for segment in found]
    assert [segment.begin for segment in found] == [0, *ends[:-1]] and ends[-1] == schedule.steps
    assert all(segment.end > segment.begin for segment in found)
    if schedule.snapshot_every:
        due = range(schedule.snapshot_every, schedule.steps + 1, schedule.snapshot_every)
        assert [segment.end for segment in found if segment.snapshot] == list(due)
    if schedule.callback:
        assert ends == list(range(1, schedule.steps + 1))
    for segment in found:
        assert not segment.redirects or segment.end == segment.begin + 1
    redirected = [segment.begin for segment in found if segment.redirects]
    assert redirected == list(range(min(schedule.redirect_steps, schedule.steps)))


@given(schedules())
def test_looks_are_25_steps_apart_or_at_the_first_end_after(schedule):
    found, looked = list(segments(schedule)), 0
    for segment in found:
        due = segment.end - looked >= 25 or segment.end == schedule.steps
        assert segment.look == due
        if schedule.loop == "host":
            assert segment.end <= looked + 25
        looked = segment.end if segment.look else looked


@pytest.mark.slow
@given(schedules())
def test_compiled_loops_have_few_lengths(schedule):
    lengths = [s.end - s.begin for s in segments(schedule) if s.compiled]
    assert not lengths or (schedule.loop == "scan" and 1 not in lengths)
    assert len(set(lengths)) <= 3  # up to the first multiple, from one to the next, to the end
