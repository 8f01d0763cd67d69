"""The bar and the pace that it shows."""

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


def start(**options):
    from samjax.train.progress import Progress

    return Progress(100, 20, images=8, flops=1000, peak=500.0, devices=2, **options)


def test_the_pace_is_a_mean_over_the_steps_since_the_last_report(clock):
    with start(show=False) as progress:
        clock.now += 50
        progress.report({})
        for wait in (0.5, 0.1, 0.0, 0.0):
            progress.step(wait)
            clock.now += 2.0
        with progress.pause():
            clock.now += 100.0  # a validation
        pace = progress.report({"loss": 1.0})
    assert pace.seconds == pytest.approx(2.0)
    assert pace.wait == pytest.approx(0.15)
    assert pace.images_per_second == pytest.approx(4.0)
    assert pace.mfu == pytest.approx(1000 / 2.0 / (2 * 500.0))
    assert set(pace.metrics()) == {
        "pace/step_seconds",
        "pace/data_wait_seconds",
        "pace/images_per_second",
        "pace/mfu",
    }


def test_the_bar_shows_steps_losses_and_pace(clock, capsys):
    with start() as progress:
        progress.step(0.0)
        clock.now += 2.0
        progress.report({"loss": 1.23456, "focal": 0.01})
        progress.message("a line above")
    shown = capsys.readouterr()
    assert "a line above" in shown.out + shown.err
    for part in ("21/100", "loss=1.235", "focal=0.01", "img/s=4", "step=2s", "wait=0s", "MFU=50.0%"):
        assert part in shown.err


def test_other_processes_show_nothing(clock, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with start() as progress:
        progress.step(0.0)
        progress.message("not here")
        assert progress.report({}).images_per_second > 0
    assert capsys.readouterr() == ("", "")
