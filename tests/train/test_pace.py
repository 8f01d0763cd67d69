"""The end of a run, by steps and by the clock."""

import dataclasses
import json

import numpy as np
import pytest
from example_training import nano_recipe, stub_training


class Clock:
    """Seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def pace(clock, **run):
    from samjax.train.config import RunConfig
    from samjax.train.pace import Pace

    return Pace(RunConfig(**run), clock)


def test_without_minutes_steps_decide(clock):
    by_steps = pace(clock, steps=8, validate_every=3)
    assert not by_steps.is_timed
    assert by_steps.position() is None
    clock.now += 1e6
    assert [by_steps.is_over(step) for step in (7, 8, 9)] == [False, True, True]
    assert [step for step in range(1, 9) if by_steps.wants_validation(step)] == [3, 6]


def test_with_minutes_the_clock_lays_the_schedule_over_what_is_left_at_the_first_step(clock):
    timed = pace(clock, steps=100, minutes=10.0)
    clock.now += 120  # compiling
    assert timed.position() == 0
    clock.now += 240
    assert timed.position() == np.float32(50)
    assert timed.seconds_left == 240
    assert not timed.is_over(10**9)
    clock.now += 240
    assert timed.is_over(1)
    clock.now += 60
    assert (timed.position(), timed.seconds_left) == (np.float32(100), 0)


def test_a_resumed_run_has_used_what_it_had_used(clock):
    timed = pace(clock, steps=100, minutes=10.0)
    clock.now += 120
    timed.position()
    clock.now += 120
    saved = json.loads(json.dumps(timed.state()))
    clock.now += 5000
    again = pace(clock, steps=100, minutes=10.0)
    clock.now += 60
    again.resume(saved)
    assert again.seconds == 300
    assert again.position() == np.float32(100 * 180 / 480)


def test_validations_are_minutes_apart_from_the_first_step_on(clock):
    timed = pace(clock, minutes=10.0, validate_minutes=1.0)
    clock.now += 300
    timed.position()
    assert not timed.wants_validation(1000)
    clock.now += 61
    assert timed.wants_validation(1)
    clock.now += 30  # it takes a while
    timed.validated()
    clock.now += 59
    assert not timed.wants_validation(2)
    clock.now += 1
    assert timed.wants_validation(3)


def test_a_timed_run_ends_by_the_clock_and_is_finished(tmp_path, monkeypatch, capsys):
    from samjax.train import loop
    from samjax.train.pace import Pace

    done = stub_training(monkeypatch)
    positions = []
    make_step = loop.make_step

    def watched(*args):
        step = make_step(*args)

        def watch(state, batch, position):
            positions.append(float(position))
            return step(state, batch)

        return watch

    clock = Clock()
    monkeypatch.setattr(loop, "make_step", watched)
    monkeypatch.setattr(loop, "Pace", lambda run: Pace(run, clock))
    config = nano_recipe(tmp_path, steps=5, minutes=1.0, checkpoint_every=100)
    passing = loop.Loop._note

    def note(self, *pending):
        passing(self, *pending)
        clock.now += 10

    monkeypatch.setattr(loop.Loop, "_note", note)
    outcome = loop.train(config, tmp_path / "run")
    assert outcome.finished
    assert outcome.step == len(done) == len(positions)
    assert outcome.step > config.run.steps
    assert positions == sorted(positions)
    assert (positions[0], positions[-1]) == (0, 5)
    again = loop.train(config, tmp_path / "run")
    assert (again.finished, again.step, len(done)) == (True, outcome.step, outcome.step)
    with pytest.raises(ValueError, match=r"run\.steps: 5, now 50"):
        loop.train(dataclasses.replace(config, run=dataclasses.replace(config.run, steps=50)), tmp_path / "run")
