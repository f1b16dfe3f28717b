"""Progress: what is shown, where, and how often. The tests set the time."""

import io
import sys

import pytest

from db3kd.progress import Progress, RecentRate, listening
from db3kd.progress.answers import count_answers_in


class Clock:
    """A clock that the tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def real_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_shows_all_counts(clock):
    stream = io.StringIO()
    with Progress(2000, 80_000, stream=stream, clock=clock, interval=5) as progress:
        clock.now += 10
        progress.update(samples=500, queries=20_000, mean_distance=1.8234)
        assert lines(stream) == [
            "labelling: 500/2,000 samples · 20,000 of 80,000 queries · 2,000 queries/s"
            " · mean distance 1.82 · 0:00:30 left"
        ]


def test_plain_lines_keep_their_interval(clock):
    stream = io.StringIO()
    with Progress(100, stream=stream, clock=clock, interval=5) as progress:
        for done in range(1, 21):
            clock.now += 1
            progress.update(samples=done)
        assert [line.split()[1] for line in lines(stream)] == [
            "5/100",
            "10/100",
            "15/100",
            "20/100",
        ]


def test_a_last_line_is_written_even_for_short_work(clock):
    stream = io.StringIO()
    with Progress(3, stream=stream, clock=clock, title="training") as progress:
        clock.now += 2
        progress.update(samples=3, queries=6)
    assert lines(stream) == ["training done: 3/3 samples · 6 queries · 3 queries/s · 0:00:02 taken"]


def test_work_that_fails_is_shown_as_stopped(clock):
    stream = io.StringIO()
    with (
        pytest.raises(RuntimeError, match="teacher"),
        Progress(10, stream=stream, clock=clock) as progress,
    ):
        progress.update(samples=4)
        raise RuntimeError("teacher is gone")
    assert lines(stream) == ["labelling stopped: 4/10 samples · 0:00:00 taken"]


def test_an_update_keeps_omitted_totals(clock):
    stream = io.StringIO()
    with Progress(10, stream=stream, clock=clock) as progress:
        progress.update(queries=50, mean_distance=2.0)
        progress.update(samples=1)
    assert "50 queries" in lines(stream)[-1]
    assert "mean distance 2" in lines(stream)[-1]


def test_time_left_is_estimated_from_the_budget_until_a_sample_is_done(clock):
    stream = io.StringIO()
    with Progress(10, 1000, stream=stream, clock=clock, interval=1) as progress:
        clock.now += 60
        progress.update(queries=250)
        assert lines(stream)[-1].endswith("0:03:00 left")
        progress.update(samples=5)
        clock.now += 15
        progress.update(queries=300)  # 4 a second; half of those for the next samples
        assert lines(stream)[-1].endswith("0:00:50 left")


def test_time_left_does_not_grow_during_a_chunk(clock):
    stream = io.StringIO()
    with Progress(600, stream=stream, clock=clock, interval=1) as progress:
        clock.now += 100
        progress.update(samples=200, queries=2000)
        for second in range(1, 101):
            clock.now += 1
            progress.update(queries=2000 + 20 * second)
    left = [line.rsplit(" ", 2)[1] for line in lines(stream)[:-1]]
    assert left[0] == "0:03:20"
    assert left == sorted(left, reverse=True)
    assert left[-1] == "0:01:40"


def test_time_left_follows_the_recent_rate(clock):
    stream = io.StringIO()
    with Progress(1000, title="training", unit="steps", stream=stream, clock=clock) as progress:
        for step in range(1, 501):
            clock.now += 0.1
            progress.update(samples=step)
        for step in range(501, 601):
            clock.now += 2
            progress.update(samples=step)
        assert lines(stream)[-1].endswith("0:13:20 left"), "400 steps, 2 s each"


def test_the_time_left_leaves_out_what_sets_up_the_work(clock):
    stream = io.StringIO()
    with Progress(1000, unit="steps", stream=stream, clock=clock, interval=1) as progress:
        clock.now += 30
        progress.update(samples=10)
        progress.restart_rates()
        clock.now += 2
        progress.update(samples=20)
        assert lines(stream)[-1] == "labelling: 20/1,000 steps · 0:03:16 left"


def test_pauses_count_neither_for_the_speed_nor_for_the_time_left(clock):
    stream = io.StringIO()
    with Progress(1000, 1000, stream=stream, clock=clock, interval=1) as progress:
        for done in range(1, 11):
            clock.now += 2
            progress.update(samples=10 * done, queries=10 * done)
        with progress.paused():
            clock.now += 3600
        clock.now += 2
        progress.update(samples=110, queries=110)
        assert lines(stream)[-1].endswith("110 of 1,000 queries · 5 queries/s · 0:02:58 left")
        with pytest.raises(KeyboardInterrupt), progress.paused():
            clock.now += 60
            raise KeyboardInterrupt
    assert lines(stream)[-1].endswith(
        "110 of 1,000 queries · 5 queries/s · 0:00:22 taken · 1:01:00 for other work"
    )


def test_known_answers_count_but_not_for_the_speed(clock):
    stream = io.StringIO()
    with Progress(1000, 1000, unit="images", stream=stream, clock=clock, interval=1) as progress:
        on_answers = count_answers_in(progress)
        on_answers.known(500)
        for _ in range(10):
            clock.now += 1
            on_answers(10)
        assert lines(stream)[-1] == (
            "labelling: 600/1,000 images · 600 of 1,000 queries · 10 queries/s · 0:00:40 left"
        )
        on_answers.known(200)
        clock.now += 1
        on_answers(10)
        assert lines(stream)[-1].endswith("810 of 1,000 queries · 10 queries/s · 0:00:19 left")
    assert lines(stream)[-1].endswith("810 of 1,000 queries · 10 queries/s · 0:00:11 taken")


def test_a_burst_of_answers_affects_the_speed_for_a_minute_only(clock):
    stream = io.StringIO()
    with Progress(1000, 100_000, stream=stream, clock=clock, interval=1) as progress:
        clock.now += 1
        progress.update(queries=50_000)
        for second in range(1, 101):
            clock.now += 1
            progress.update(queries=50_000 + 10 * second)
        assert "51,000 of 100,000 queries · 10 queries/s" in lines(stream)[-1]
        assert lines(stream)[-1].endswith(" 1:21:40 left")
    assert "505 queries/s" in lines(stream)[-1], "the speed of the whole run"


def test_the_rate_of_a_slow_count_covers_its_last_steps():
    rate = RecentRate(0.0, 0)
    assert rate.per_second(0.0) == 0
    for number in range(1, 4):
        rate.update(300.0 * number, number)
    assert rate.per_second(900.0) == pytest.approx(1 / 300)


def test_a_rate_remembers_few_counts():
    rate = RecentRate(0.0, 0)
    for number in range(1, 100_001):
        rate.update(number / 1000, number)
    assert rate.per_second(100.0) == pytest.approx(1000)
    assert len(rate._marks) < 70


@pytest.mark.parametrize("distance", [float("nan"), float("inf")])
def test_a_mean_that_is_not_finite_is_omitted(clock, distance):
    stream = io.StringIO()
    with Progress(10, stream=stream, clock=clock) as progress:
        progress.update(samples=1, mean_distance=distance)
    assert "distance" not in lines(stream)[-1]


def test_work_of_an_earlier_process_counts_but_not_for_the_speed(clock):
    stream = io.StringIO()
    before = {"samples_before": 1000, "queries_before": 40_000}
    with Progress(2000, 80_000, stream=stream, clock=clock, interval=5, **before) as progress:
        clock.now += 10
        progress.update(samples=500, queries=20_000)
        assert lines(stream) == [
            "labelling: 1,500/2,000 samples · 60,000 of 80,000 queries · 2,000 queries/s"
            " · 0:00:10 left"
        ]


def test_an_empty_data_set_is_done(clock):
    stream = io.StringIO()
    with Progress(0, 0, stream=stream, clock=clock) as progress:
        progress.update(samples=0, queries=0)
    assert lines(stream) == ["labelling done: 0/0 samples · 0 of 0 queries · 0:00:00 taken"]


def test_a_terminal_shows_a_bar_and_keeps_the_last_line(clock, real_terminal):
    pytest.importorskip("rich")
    stream = Terminal()
    with Progress(10, stream=stream, clock=clock) as progress:
        progress.update(samples=5, queries=70)
    assert "\x1b[" in stream.getvalue()
    assert "labelling done: 5/10 samples · 70 queries" in stream.getvalue()


def test_a_terminal_without_rich_shows_plain_lines(clock, real_terminal, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    stream = Terminal()
    with Progress(10, stream=stream, clock=clock) as progress:
        progress.update(samples=5)
    assert lines(stream) == ["labelling done: 5/10 samples · 0:00:00 taken"]


@pytest.mark.parametrize(("rank", "shown"), [(None, True), ("0", True), ("1", False)])
def test_only_the_first_process_of_a_launcher_shows_a_display(monkeypatch, capsys, rank, shown):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    for progress in (True, False):
        with listening(progress, lambda: Progress(3)) as listener:
            listener.update(samples=3)
    assert capsys.readouterr().err.count("done: 3/3 samples") == shown


def test_a_pause_hides_the_bar_and_keeps_what_other_work_writes(clock, real_terminal):
    pytest.importorskip("rich")
    stream = Terminal()
    with Progress(10, stream=stream, clock=clock) as progress:
        progress.update(samples=5)
        with progress.paused():
            hidden = stream.getvalue()
            stream.write("other work\n")
        progress.update(samples=6)
    assert hidden.endswith("\x1b[1A\x1b[2K"), "the bar is erased"
    shown_again = stream.getvalue().split("other work\n")[1]
    assert "\x1b[1A" not in shown_again.split("labelling")[0], "nothing above it is erased"
