"""Progress: silence, a callback, a bar."""

import io

import pytest
from rich.console import Console

from jaxviz import progress


def advance_thrice(how):
    with progress.track(how, 10, "windows") as advance:
        for count in (4, 4, 2):
            advance(count)


def test_false_is_silent(capfd):
    advance_thrice(False)
    assert capfd.readouterr() == ("", "")


def test_a_function_is_told_what_is_done():
    told = []
    advance_thrice(lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize("terminal", [True, False])
def test_true_draws_a_bar_with_rate_and_remaining_time(monkeypatch, terminal):
    screen = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console",
        lambda **options: Console(file=screen, force_terminal=terminal, width=120),
    )
    advance_thrice(True)
    text = screen.getvalue()
    assert "windows" in text and "10/10" in text
    if terminal:
        assert "windows/s" in text and "0:00:0" in text


def test_the_bar_goes_to_stderr_not_into_a_program_s_output(capfd):
    advance_thrice(True)
    out, err = capfd.readouterr()
    assert out == "" and "10/10" in err


def test_an_error_inside_passes_through():
    with pytest.raises(KeyboardInterrupt):
        with progress.track(True, 10, "windows") as advance:
            advance(1)
            raise KeyboardInterrupt
