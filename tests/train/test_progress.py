"""The bar, and the speed that it shows."""

import jax
import pytest
from example_models import SMALL


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
    """Begins a bar at step 20 of 100, by default on devices that can do 500 FLOP/s; the encoder is frozen."""
    from samjax.train import progress
    from samjax.train.config import DataConfig, RunConfig, TrainConfig

    from samjax.sharding import make_mesh

    def begin(peak=500.0):
        monkeypatch.setattr(progress, "peak_flops", lambda kind, dtype: peak)
        config = TrainConfig(data=DataConfig(masks_per_image=5), run=RunConfig(steps=100, batch=8))
        return progress.Progress(config, SMALL, make_mesh(), 20, trains_encoder=False)

    return begin


def test_speed_is_a_mean_over_steps_without_compilation_and_pauses(start, clock):
    from samjax.train.flops import step_flops

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
    flops = step_flops(SMALL, images=8, masks=2.5, passes=11, prompt_tokens=10, trains_encoder=False)
    assert speed == {
        "step_seconds": pytest.approx(2.0),
        "data_wait_seconds": pytest.approx(0.15),
        "images_per_second": pytest.approx(4.0),
        "mfu": pytest.approx(flops / 2.0 / 500.0 / jax.device_count()),
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


def test_the_bar_shows_steps_losses_and_speed(start, capsys):
    with start() as progress:
        progress.step(0.0)
        speed = {"step_seconds": 2.0, "data_wait_seconds": 0.0, "images_per_second": 4.0, "mfu": 0.5}
        progress.show({"loss": 1.23456, "focal": 0.01, "learning_rate": 1.0, **speed})
        progress.message("a line above")
    shown = capsys.readouterr()
    assert "a line above" in shown.out + shown.err
    for part in ("21/100", "loss=1.235", "focal=0.01", "img/s=4", "step=2s", "wait=0s", "MFU=50.0%"):
        assert part in shown.err


def test_other_processes_show_nothing(start, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with start() as progress:
        progress.step(0.0)
        progress.show({"loss": 1.0})
        progress.message("not here")
    assert capsys.readouterr() == ("", "")
