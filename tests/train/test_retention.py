"""Old data beside the new: measured at each validation, mixed in, and a warning of prompts that are never shown."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from example_training import nano_recipe, stub_training, write_shapes


@pytest.fixture
def done(monkeypatch):
    """As `stub_training`, but a validation's scores are made of the number of its masks."""
    from samjax.train.tasks.interactive import task

    done = stub_training(monkeypatch)

    def validate(config, params, batches, execution):
        masks = sum(int(np.asarray(batch.valid).sum()) for batch in batches)
        done.append(0)
        return {"iou": masks / 100, "iou_1": masks / 200, "iou_box": masks / 50, "masks": float(masks)}

    monkeypatch.setattr(task, "validate", validate)
    return done


@pytest.fixture
def recipe(tmp_path):
    """Eight steps; four old photos to measure."""
    config = nano_recipe(tmp_path, validate_every=4, checkpoint_every=100)
    return with_retained(config, f"sa1b={write_shapes(tmp_path / 'old', 4, start=30)}")


def with_retained(config, *sources, **options):
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, retain=sources, **options))


def with_val(config, folder):
    held_out = write_shapes(folder / "held_out", 6, start=20)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, val=(f"sa1b={held_out}",)))


def curve(folder, name):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def test_old_data_are_measured_beside_the_new_at_every_validation(recipe, done, tmp_path, capsys, monkeypatch):
    from samjax.cli import command
    from samjax.train.checkpoints import Checkpoints
    from samjax.train.run_folder import to_json

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "_keep_compiled_programs", lambda _: None)  # a setting of the whole process
    (tmp_path / "recipe.json").write_text(to_json(with_val(recipe, tmp_path)))
    run = tmp_path / "run"
    assert command.main(["train", str(tmp_path / "recipe.json"), "--out", str(run)]) == 0
    assert done == [0, 0, 1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 0, 0]
    assert curve(run, "val/iou") == {0: 0.12, 4: 0.12, 8: 0.12}
    assert curve(run, "retain/iou_1") == {0: 0.04, 4: 0.04, 8: 0.04}
    assert curve(run, "retain/iou_box") == {0: 0.16, 4: 0.16, 8: 0.16}
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        measured = checkpoints.metrics(8)
    assert (measured["iou"], measured["retain/iou"], measured["retain/masks"]) == (0.12, 0.08, 8.0)
    output, errors = capsys.readouterr()
    told = [line.split(" ", 2)[2] for line in errors.splitlines()]
    assert "data of eval.retain: 4 photos with 8 masks" in told
    assert "step 0: retain/iou 0.0800; iou_1 0.0400, iou_box 0.1600" in told
    assert "step 8: retain/iou 0.0800 (0.0800 at step 0); iou_1 0.0400, iou_box 0.1600" in told
    assert sum("compiling validation" in line for line in told) == 1  # the programs are the same
    lines = output.splitlines()
    assert "eval.retain: 4 records; left out: nothing" in lines
    assert "  val/iou_box         0.2400 -> 0.2400" in lines
    assert "  retain/iou_box      0.1600 -> 0.1600" in lines
    assert "  retain/masks        8" in lines
    assert sum("validation, step 0 -> step 8" in line for line in lines) == 1


def test_they_are_measured_without_new_ones_too_and_choose_no_checkpoint(recipe, done, tmp_path):
    from samjax.train import loop
    from samjax.train.checkpoints import Checkpoints

    outcome = loop.train(recipe, tmp_path / "run")
    assert done == [0, 1, 2, 3, 4, 0, 5, 6, 7, 8, 0]
    assert outcome.metrics == {
        "retain/iou": 0.08,
        "retain/iou_1": 0.04,
        "retain/iou_box": 0.16,
        "retain/masks": 8.0,
    }
    assert set(curve(tmp_path / "run", "retain/iou")) == {0, 4, 8}
    assert not curve(tmp_path / "run", "val/iou")
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert (checkpoints.best(), checkpoints.latest()) == (None, 8)


def test_an_export_tells_what_is_retained(recipe, done, tmp_path, capsys, monkeypatch):
    from samjax.cli import command
    from samjax.train import loop

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "_keep_compiled_programs", lambda _: None)
    loop.train(recipe, tmp_path / "run")
    capsys.readouterr()
    assert command.main(["export", str(tmp_path / "run"), str(tmp_path / "mine.safetensors")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  retain/iou 0.0800, 0.0800 at step 0"


def test_so_many_photos_are_measured(recipe, done, tmp_path):
    from samjax.train import loop

    loop.train(with_retained(recipe, *recipe.eval.retain, retain_images=3), tmp_path / "run")
    assert curve(tmp_path / "run", "retain/masks") == {0: 6, 4: 6, 8: 6}


def test_other_old_data_may_be_measured_when_a_run_is_resumed(recipe, done, tmp_path):
    from samjax.train import loop

    loop.train(recipe, tmp_path / "run")
    more = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, steps=9))
    again = with_retained(more, f"sa1b={write_shapes(tmp_path / 'older', 2, start=40)}")
    assert loop.train(again, tmp_path / "run").metrics["retain/masks"] == 4


def test_bad_old_data_stop_a_run_before_anything_is_computed(recipe, done, tmp_path, monkeypatch):
    from samjax.train import loop

    monkeypatch.setattr(loop, "init_state", None)
    with pytest.raises(ValueError, match=r"^eval\.retain: sa1b=/no/where: "):
        loop.train(with_retained(recipe, "sa1b=/no/where"), tmp_path / "run")
    for photo in sorted((tmp_path / "old").glob("*.jpg"))[1:]:
        photo.write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"^eval\.retain: .* are bad"):
        loop.train(recipe, tmp_path / "run")
    tolerant = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, max_bad_share=1.0, min_area=4000))
    tolerant = with_retained(tolerant, *recipe.eval.retain, retain_images=2)  # of four: not all that there are
    write_shapes(tmp_path / "old", 4, start=30)
    with pytest.raises(ValueError, match=r"eval\.retain: all 2 records of the data are bad"):
        loop.train(tolerant, tmp_path / "tolerant")
    assert not done


def test_old_data_are_mixed_into_a_run_and_named(recipe, done, tmp_path, capsys):
    """A fifth of the photos, from the first step to the last, also after a break."""
    from samjax.train import loop

    seen = []
    make = loop.make_step

    def make_step(*args):
        step = make(*args)

        def watched(state, batch):
            seen.append(np.asarray(batch.record))
            return step(state, batch)

        return watched

    old = f"sa1b={tmp_path / 'old'}"
    mixed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, mix=(old,), mix_share=0.25))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", make_step)
        patch.setattr(loop.StopRequests, "reached", lambda self, step: step == 5)
        loop.train(mixed, tmp_path / "run")
    assert "data.mix: 4 records; left out: nothing" in capsys.readouterr().out.splitlines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", make_step)
        loop.train(mixed, tmp_path / "run")
    assert done[-2:] == [8, 0]
    # Batches of four; six photos are new.
    assert [(records >= 6).sum() for records in seen] == [1] * 8
    assert curve(tmp_path / "run", "epoch")[8] == pytest.approx(8 * 3 / 6)
    other = dataclasses.replace(mixed, data=dataclasses.replace(mixed.data, mix_share=0.5))
    with pytest.raises(ValueError, match=r"data\.mix_share: 0\.25, now 0\.5"):
        loop.train(other, tmp_path / "run")


@pytest.mark.parametrize(
    ("box_probability", "corrections", "said"),
    [
        (1.0, 0, "boxes alone .* clicks are likely to get worse"),
        (1.0, 8, "its box first .* clicks without a box"),
        (0.0, 8, "no mask is prompted by its box .* boxes are likely to get worse"),
        (0.0, 0, "no mask is prompted by its box"),
        (0.5, 0, None),
        (0.5, 8, None),
        (0.99, 0, None),
    ],
)
def test_a_recipe_that_shows_one_kind_of_prompt_is_warned_of(recipe, box_probability, corrections, said):
    from samjax.train.config import InteractionConfig
    from samjax.train.retention import warn_of_unseen_prompts

    user = InteractionConfig(box_probability=box_probability, corrections=corrections)
    config = dataclasses.replace(recipe, interaction=user)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if said is None:
            warn_of_unseen_prompts(config)
            return
    with pytest.warns(UserWarning, match=rf"{said}.*; retain/iou_1.* will tell\. --interaction\.box-probability 0\.5"):
        warn_of_unseen_prompts(config)
    with pytest.warns(UserWarning, match=rf"{said}.*; --eval\.retain FORMAT=PATH measures"):
        warn_of_unseen_prompts(with_retained(config))


def test_recorded_clicks_are_clicks_without_a_box(recipe):
    from samjax.train.retention import unseen_prompts

    boxes = dataclasses.replace(recipe.interaction, box_probability=1.0, corrections=0)
    assert unseen_prompts(dataclasses.replace(recipe, interaction=boxes)) is not None
    shown = dataclasses.replace(boxes, recorded_share=0.5)
    assert unseen_prompts(dataclasses.replace(recipe, interaction=shown)) is None


def test_the_warning_comes_once_before_the_first_step(recipe, done, tmp_path):
    from samjax.train import loop

    user = dataclasses.replace(recipe.interaction, box_probability=1.0, corrections=0)
    boxes = dataclasses.replace(recipe, interaction=user)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.StopRequests, "reached", lambda self, step: step == 5)
        with pytest.warns(UserWarning, match="clicks") as caught:
            loop.train(boxes, tmp_path / "run")
    assert len([warning for warning in caught if "clicks" in str(warning.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.train(boxes, tmp_path / "run")  # resumed
    assert done[-2:] == [8, 0]
