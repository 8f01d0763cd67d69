"""The console of a run: lines and bar, speed, and the time that is left."""

import re
import sys

import jax
import pytest


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    from samjax.train import progress

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "perf_counter", lambda: Clock.now)
    return Clock


@pytest.fixture
def start(monkeypatch):
    """Begins a bar at step 20 of 100, of 7 FLOP a mask, by default on devices that can do 500 FLOP/s."""
    from samjax.sharding import make_mesh
    from samjax.train import progress
    from samjax.train.config import DataConfig, RunConfig, TrainConfig

    def begin(peak=500.0):
        monkeypatch.setattr(progress, "peak_flops", lambda kind, dtype: peak)
        often = {"validate_every": 30, "picture_every": 40, "checkpoint_every": 50}
        data = DataConfig(val=("sa1b=photos",), masks_per_image=5)
        config = TrainConfig(data=data, run=RunConfig(steps=100, batch=8, **often))
        return progress.Progress(config, make_mesh(), 20, lambda masks: round(7 * masks))

    return begin


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Standard error is a terminal."""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)


def test_speed_is_a_mean_over_steps_without_compilation_and_pauses(start, clock):
    with start() as progress:
        clock.now += 50  # the first step compiles
        progress.step(9.0)
        assert progress.speed(20.0) == {}
        for waited in (0.5, 0.1, 0.0, 0.0):
            clock.now += 2.0
            progress.step(waited)
            clock.now += 100.0  # a validation
            progress.restart_clock()
        speed = progress.speed(20.0)
        assert progress.speed(20.0) == {}
    assert speed == {
        "step_seconds": pytest.approx(2.0),
        "data_wait_seconds": pytest.approx(0.15),
        "images_per_second": pytest.approx(4.0),
        "mfu": pytest.approx(7 * 20 / 2.0 / 500.0 / jax.device_count()),
    }


@pytest.mark.parametrize(("peak", "masks"), [(None, 20.0), (500.0, None)])
def test_without_a_peak_or_masks_there_is_no_utilisation(start, clock, capsys, peak, masks):
    with start(peak) as progress:
        for _ in range(2):
            progress.step(0.0)
            clock.now += 2.0
        speed = progress.speed(masks)
        progress.show(speed)
    assert set(speed) == {"step_seconds", "data_wait_seconds", "images_per_second"}
    shown = capsys.readouterr().err
    assert "img/s" in shown
    assert "MFU" not in shown


VALUES = {"loss": 1.23456, "focal": 0.01, "learning_rate": 1.0, "mfu": 0.5}
SPEED = {"step_seconds": 2.0, "data_wait_seconds": 0.0, "images_per_second": 4.0}
SHOWN = ("loss=1.235", "focal=0.01", "img/s=4", "step=2s", "wait=0s", "MFU=50.0%")


def test_on_a_terminal_a_bar_shows_steps_losses_and_speed(start, terminal, capsys):
    with start() as progress:
        progress.message("a line before")
        progress.step(0.0)
        progress.show({**VALUES, **SPEED})
        progress.message("a line above")
    output, shown = capsys.readouterr()
    assert not output
    assert shown.startswith("a line before\n")
    assert "a line above" in shown
    for part in ("21/100", "<?", *SHOWN):  # how long the rest takes is not known yet
        assert part in shown


def test_in_a_file_each_log_is_a_line_with_the_time_of_day(start, capsys):
    with start() as progress:
        for _ in range(3):
            progress.step(0.0)
        progress.show({**VALUES, **SPEED})
        list(progress.over(range(3), "validating", 3))
        progress.message("a line")
    output, shown = capsys.readouterr()
    assert not output
    assert "\r" not in shown
    logged, message = shown.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d step 23/100: " + ", ".join(SHOWN), logged)
    assert re.fullmatch(r"\S+ \S+ a line", message)


def test_compilation_is_announced_and_timed(start, clock, capsys):
    with start() as progress:
        with progress.compiling("the step"):
            assert capsys.readouterr().err.endswith("compiling the step ...\n")
            clock.now += 41
        assert capsys.readouterr().err.endswith("compiled the step in 41 s\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.123, "0.12 s"), (9.7, "9.7 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (199, "3 min 19 s"), (7500, "2 h 5 min")],
)
def test_durations_are_words(start, clock, capsys, seconds, text):
    with start() as progress, progress.compiling("it"):
        clock.now += seconds
    assert capsys.readouterr().err.endswith(f"compiled it in {text}\n")


def test_the_time_left_is_known_when_steps_are_steady(start, clock, capsys):
    """Of what comes between steps each kind counts as long as the newest took; what was compiled counts nowhere."""
    with start() as progress:
        with progress.aside("validation"), progress.compiling("validation"):
            clock.now += 500.0
        with progress.aside("validation"):
            clock.now += 7.0
            with progress.compiling("something"):
                clock.now += 60.0
        progress.restart_clock()
        clock.now += 50.0  # the first step compiles
        progress.step(0.0)
        for _ in range(4):
            clock.now += 2.0
            progress.step(0.0)
            assert progress.seconds_left() is None
        clock.now += 2.0
        capsys.readouterr()
        progress.step(0.0)
        # At step 26 of 100; validation is every 30 steps and at the end: at 30, 60, 90 and 100.
        assert progress.seconds_left() == pytest.approx(74 * 2.0 + 4 * 7.0)
        told = capsys.readouterr().err
        assert told.endswith("the other 74 steps take about 2 min 56 s, with 4 validations\n")
        with progress.aside("checkpoint"):  # every 50 steps: two to come
            clock.now += 1.5
        progress.restart_clock()
        for _ in range(5):
            clock.now += 2.0
            progress.step(0.0)
        assert progress.seconds_left() == pytest.approx(69 * 2.0 + 3 * 7.0 + 2 * 1.5)
        for _ in range(69):
            clock.now += 2.0
            progress.step(0.0)
        assert progress.seconds_left() == 0.0
        progress.show({"loss": 1.0})
    rest = capsys.readouterr().err
    assert rest.endswith("step 100/100: loss=1, left=00:00\n")
    assert "take about" not in rest  # that is told once


def test_steps_that_become_slower_are_noticed(start, clock):
    with start() as progress:
        for _ in range(11):
            clock.now += 1.0
            progress.step(0.0)
        assert progress.seconds_left() == pytest.approx(69.0)
        for _ in range(40):
            clock.now += 3.0
            progress.step(0.0)
        assert 2.0 * 29 < progress.seconds_left() < 3.0 * 29


def test_other_processes_show_nothing(start, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with start() as progress:
        progress.step(0.0)
        progress.show({"loss": 1.0})
        progress.message("not here")
    assert capsys.readouterr() == ("", "")
