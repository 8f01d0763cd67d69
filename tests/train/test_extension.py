"""More steps for a run that has finished."""

import dataclasses
import json

import pytest
from example_training import nano_recipe, stub_training

from samjax.train import extension
from samjax.train.config import LossConfig, OptimConfig, RunConfig, TrainConfig
from samjax.train.run_folder import Extension


@pytest.fixture
def done(monkeypatch):
    return stub_training(monkeypatch)


@pytest.fixture
def recipe(tmp_path):
    """Eight steps, measured at the last one, and before the first."""
    config = nano_recipe(tmp_path, checkpoint_every=100)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, val=config.data.train))


def with_steps(config, steps, **changes):
    return dataclasses.replace(config, run=dataclasses.replace(config.run, steps=steps, **changes))


def written(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_finished_run_goes_on_with_more_steps(recipe, done, tmp_path, capsys):
    from samjax.train import loop
    from samjax.train.run_folder import read_config

    out = tmp_path / "run"
    loop.train(with_steps(recipe, 4), out)
    started = written(out)
    capsys.readouterr()
    outcome = loop.train(with_steps(recipe, 6), out)
    assert (outcome.step, outcome.finished) == (6, True)
    assert done == [0, 1, 2, 3, 4, 0, 5, 6, 0]  # nothing twice, and no second validation before the first step
    curve = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve if "loss" in line] == [1, 2, 3, 4, 5, 6]
    # Half a cosine over what is left after two steps of warm-up: of two steps at first, of four now.
    rates = [line["learning_rate"] for line in curve if "loss" in line]
    assert rates == pytest.approx([0.0, 4e-4, 8e-4, 4e-4, 4e-4, 8e-4 * 0.1464466], abs=1e-9)
    told = capsys.readouterr().err
    assert "the run had finished at step 4 and gets 6 steps in all; config.json notes it" in told
    assert "the learning rate was 0.0004 at step 4 and is 0.0004 at step 5; there is no second warm-up" in told
    now = written(out)
    (noted,) = now.pop("extended")
    assert (noted["at"], noted["steps"], noted["steps_before"]) == (4, 6, 4)
    assert now.pop("run") == {**started.pop("run"), "steps": 6}
    assert now == started
    assert read_config(out)[0].run.steps == 6
    # The same command again has nothing to do, and a third part is noted beside the second.
    assert loop.train(with_steps(recipe, 6), out).step == 6
    loop.train(with_steps(recipe, 7), out)
    assert done[9:] == [7, 0]
    assert [(noted["at"], noted["steps"]) for noted in written(out)["extended"]] == [(4, 6), (6, 7)]


@pytest.fixture
def folder(recipe, tmp_path):
    """Makes the folder of a run of eight steps with checkpoints of these ones."""
    from samjax.train.loop import network
    from samjax.train.run_folder import write_config

    def make(*steps, extensions=()):
        out = tmp_path / "made"
        for step in steps:
            (out / "checkpoints" / str(step)).mkdir(parents=True)
        write_config(out, recipe, network(recipe), extensions)
        return out

    return make


def test_the_same_number_of_steps_adds_nothing(done, recipe, folder):
    assert extension.requested(folder(3, 8), recipe) is None


def test_a_run_that_has_not_finished_gets_no_other_number_of_steps(done, recipe, folder):
    out = folder(3, 6)
    for steps in (7, 20):
        with pytest.raises(ValueError, match=r"is at step 6 of 8, and run\.steps is ") as error:
            extension.requested(out, with_steps(recipe, steps))
        assert f"samjax train {out / 'config.json'} --out {out}" in str(error.value)
    assert written(out)["run"]["steps"] == 8


@pytest.mark.parametrize("steps", [3, 6, 7])
def test_steps_that_were_done_cannot_be_taken_back(done, recipe, folder, steps):
    out = folder(7, 8)
    with pytest.raises(ValueError, match=rf"run\.steps is {steps}, but the run in .* has done 8 steps of 8"):
        extension.requested(out, with_steps(recipe, steps))


def test_the_number_may_be_changed_while_nothing_was_done_with_it(done, recipe, folder):
    """The run of five steps was given three more by mistake."""
    out = folder(5, extensions=[Extension(at=5, steps=8, steps_before=5, time="2026-01-01T00:00:00+00:00")])
    asked = extension.requested(out, with_steps(recipe, 6))
    assert (asked.at, asked.steps, asked.steps_before) == (5, 6, 5)
    extension.record(out, asked)
    assert written(out)["run"]["steps"] == 6
    assert [(noted["at"], noted["steps"]) for noted in written(out)["extended"]] == [(5, 6)]


def test_what_is_wrong_is_said_before_the_configuration_changes(done, recipe, folder, tmp_path):
    from samjax.train import loop

    out = folder(8)
    for file in (tmp_path / "data").glob("*.jpg"):
        file.write_bytes(b"no photo")
    before = written(out)
    with pytest.raises(ValueError, match=r"data\.val"):
        loop.train(with_steps(recipe, 20), out)
    assert written(out) == before
    assert not done


@pytest.mark.parametrize(
    ("optim", "said"),
    [
        (OptimConfig(schedule="constant", warmup_steps=0, learning_rate=0.5), "The learning rate stays 0.5"),
        (
            OptimConfig(schedule="steps", warmup_steps=10, learning_rate=0.5, milestones=(0.5,)),
            "Its schedule (steps) is laid over all 400 steps: the learning rate was 0.05 at step 100 and is 0.5 at "
            "step 101; there is no second warm-up",
        ),
        (
            OptimConfig(schedule="cosine", warmup_steps=0, learning_rate=0.5),
            "the learning rate was 0.000123 at step 100 and is 0.427 at step 101",
        ),
    ],
)
def test_what_changes_is_said_plainly(optim, said):
    config = TrainConfig(optim=optim, loss=LossConfig(), run=RunConfig(steps=400))
    text = extension.explained(Extension(at=100, steps=400, steps_before=100, time=""), config)
    assert text.endswith(said)


def test_a_loss_that_comes_back_is_announced():
    config = TrainConfig(loss=LossConfig(balanced=1.0, balanced_until=0.5), run=RunConfig(steps=400))
    text = extension.explained(Extension(at=100, steps=400, steps_before=100, time=""), config)
    assert text.endswith("the balanced cross-entropy falls to zero at step 200 now, not at 50")


def test_a_new_run_from_the_configuration_of_such_a_one_is_warned_of(
    done, recipe, folder, tmp_path, monkeypatch, capsys
):
    from samjax.cli import command

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "_keep_compiled_programs", lambda _: None)
    out = folder(8, extensions=[Extension(at=5, steps=8, steps_before=5, time="")])
    for file in (tmp_path / "data").glob("*.jpg"):
        file.write_bytes(b"no photo")  # so that nothing is trained
    assert command.main(["train", str(out / "config.json"), "--out", str(tmp_path / "new")]) == 3
    told = capsys.readouterr().err
    assert f"warning: the run of {out / 'config.json'} was given more steps when it had finished, at step 5" in told
    assert "a new run has one schedule over all 8 steps" in told
