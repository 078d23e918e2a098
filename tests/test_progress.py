"""Progress: silence, a callback, a bar; and times in words."""

import io

import pytest
from rich.console import Console

from jaxviz.progress import Bar, duration, track


def advance_thrice(how):
    with track(how, 10, "positions") as advance:
        for count in (4, 4, 2):
            advance(count)


@pytest.fixture
def screen(monkeypatch):
    """What a terminal of 120 columns is sent."""
    stream = io.StringIO()

    def console(**options):
        return Console(file=stream, force_terminal=True, width=120)

    monkeypatch.setattr("rich.console.Console", console)
    return stream


def test_false_is_silent(capfd):
    advance_thrice(False)
    assert capfd.readouterr() == ("", "")


def test_a_function_is_told_what_is_done():
    told = []
    advance_thrice(lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_true_draws_a_bar_with_rate_and_remaining_time(screen):
    advance_thrice(True)
    for part in ("positions", "10/10", "positions/s", "0:00:0"):
        assert part in screen.getvalue()


def test_the_bar_goes_to_stderr_not_into_a_program_s_output(capfd):
    advance_thrice(True)
    out, err = capfd.readouterr()
    assert out == "" and "positions" in err and "10/10" in err


def test_a_pipe_gets_a_line_now_and_then(capfd):
    now = 0.0
    bar = Bar("occluding [2] digits", "positions", vanishes=True, clock=lambda: now)
    bar.start()
    for now in (4.0, 11.0, 12.0, 15.0, 18.0, 5000.0, 5300.0, 5601.0):
        bar.tell(int(now), 10_000)
    bar.tell(10_000, 10_000)
    bar.stop()
    err = capfd.readouterr().err.splitlines()
    assert err[0] == "occluding [2] digits …"
    assert err[1] == "occluding [2] digits: 11 of 10,000 positions, 11.0 s, about 2.8 h left"
    assert [line.split(": ")[1].split(" of")[0] for line in err[1:]] == [
        "11",
        "18",
        "5,000",
        "5,601",
    ]


@pytest.mark.parametrize("how", [True, False, lambda done, total: None])
def test_an_error_inside_passes_through(how):
    with pytest.raises(KeyboardInterrupt), track(how, 10, "positions") as advance:
        advance(1)
        raise KeyboardInterrupt


def test_a_bar_that_was_never_begun_draws_nothing(screen):
    bar = Bar("reading", vanishes=True)
    bar.tell(1, 4)
    bar.stop()
    assert screen.getvalue() == ""


def test_a_bar_of_unknown_length_tells_neither_count_nor_rate(screen):
    bar = Bar("reading", "images")
    bar.start()
    bar.stop()
    assert "reading" in screen.getvalue() and "images" not in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1.0 s"), (119, "119.0 s"), (600, "10.0 min"), (9000, "2.5 h"), (1e6, "11.6 days")],
)
def test_durations_are_told_in_units_that_suit(seconds, text):
    assert duration(seconds) == text
