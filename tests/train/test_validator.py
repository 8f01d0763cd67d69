"""Validation of a run: its data are judged before anything is computed, and its start is measured."""

import dataclasses
import json
import math

import pytest
from example_training import nano_recipe, stub_training, write_shapes


@pytest.fixture
def recipe(tmp_path):
    """Eight steps, validated at the fourth and the last one, on six photos in two batches."""
    config = nano_recipe(tmp_path, validate_every=4, validation_images=6, checkpoint_every=100)
    held_out = write_shapes(tmp_path / "held_out", 6, start=20)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, val=(f"sa1b={held_out}",)))


@pytest.fixture
def done(monkeypatch):
    return stub_training(monkeypatch)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_measured_before_its_first_step_and_compared_with_that(recipe, done, tmp_path, capsys, monkeypatch):
    from samjax.cli import command
    from samjax.train.run_folder import to_json

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "_keep_compiled_programs", lambda _: None)  # a setting of the whole process
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    assert command.main(["train", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]) == 0
    assert done == [0, 1, 2, 3, 4, 0, 5, 6, 7, 8, 0]
    measured = {line["step"]: line["val/iou"] for line in lines(tmp_path / "run") if "val/iou" in line}
    assert measured == pytest.approx({0: 0.11, 4: 0.16, 8: 0.21})
    output, errors = capsys.readouterr()
    first, tune, cache, *told = [line.split(" ", 2)[2] for line in errors.splitlines() if line[:2] == "20"]
    assert first.startswith("training on ")
    assert tune == "tune.mode full"  # a table follows
    assert (
        cache == "features are computed at each step: tune.mode full trains the image encoder from its first layer on"
    )
    assert told[0] == "validation data: 6 photos with 12 masks"
    assert told[1].startswith("compiling validation")
    assert told[2].startswith("compiled validation")
    assert told[3].startswith("step 0: val/iou 0.1100; iou_1 0.1100")
    assert told[4] == "compiling the step ..."
    assert told[5].startswith("compiled the step in ")
    assert sum("compiling" in line for line in told) == 2
    assert any(line.startswith("step 4: val/iou 0.1600 (0.1100 at step 0); ") for line in told)
    assert any(line.startswith("step 8/8: loss=0.125, ") for line in told)
    assert output.splitlines() == [
        "data.train: 6 records; left out: nothing",
        "data.val: 6 records; left out: nothing",
        f"{tmp_path / 'run'}: step 8 of 8, finished",
        "  validation, step 0 -> step 8",
        "  val/iou             0.1100 -> 0.2100",
        "  val/iou_1           0.1100 -> 0.2100",
        "  val/masks           12",
        f"the weights for other programs: samjax export {tmp_path / 'run'} FILE",
        "more steps: the same command with --run.steps above 8",
    ]


def test_a_run_that_breaks_off_is_measured_again_only_where_it_starts_anew(recipe, done, tmp_path, monkeypatch):
    """The first checkpoint is at the fourth step."""
    from samjax.train import loop

    def breaking(at, make=loop.make_step):
        def make_step(*args):
            step = make(*args)

            def broken(state, batch):
                if int(state.step) == at:
                    raise RuntimeError("power failure")
                return step(state, batch)

            return broken

        return make_step

    for last in (1, 5):  # before the first checkpoint, and after it
        monkeypatch.setattr(loop, "make_step", breaking(last))
        with pytest.raises(RuntimeError, match="power failure"):
            loop.train(recipe, tmp_path / "run")
    assert done == [0, 1, 0, 1, 2, 3, 4, 0, 5]
    monkeypatch.setattr(loop, "make_step", breaking(math.inf))
    loop.train(recipe, tmp_path / "run")
    assert done[9:] == [5, 6, 7, 8, 0]
    found = lines(tmp_path / "run")
    assert [line["step"] for line in found if "val/iou" in line] == [0, 4, 8]
    assert [line["step"] for line in found if "loss" in line] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_stop_that_is_asked_for_before_the_first_step_ends_the_run_there(recipe, done, tmp_path, monkeypatch):
    from samjax.train import loop

    monkeypatch.setattr(loop.StopRequests, "reached", lambda self, step: True)
    outcome = loop.train(recipe, tmp_path / "run")
    assert (done, outcome.step, outcome.finished) == ([0], 0, False)
    assert not any(path.name.isdigit() for path in (tmp_path / "run" / "checkpoints").iterdir())


def without_masks(held_out):
    for file in held_out.glob("*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "annotations": []}))


def without_photos(held_out):
    for file in sorted(held_out.glob("*.jpg"))[3:]:
        file.unlink()


def damaged(held_out):
    for file in sorted(held_out.glob("*.jpg"))[3:]:
        file.write_bytes(b"no photo")


@pytest.mark.parametrize("fault", [without_photos, damaged, without_masks])
def test_bad_validation_data_stop_a_run_before_anything_is_computed(recipe, done, tmp_path, monkeypatch, fault):
    from samjax.train import loop

    monkeypatch.setattr(loop, "init_state", None)
    fault(tmp_path / "held_out")
    with pytest.raises(ValueError, match=r"data\.val"):
        loop.train(recipe, tmp_path / "run")
    assert not done


def test_a_wrong_path_of_validation_data_is_named_with_its_option(recipe, done, tmp_path):
    from samjax.train.loop import train

    wrong = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, val=("sa1b=/no/where",)))
    with pytest.raises(ValueError, match=r"^data\.val: sa1b=/no/where: "):
        train(wrong, tmp_path / "run")
    assert not done


def test_validation_data_without_a_usable_mask_stop_a_run_that_tolerates_bad_records(
    recipe, done, tmp_path, monkeypatch
):
    from samjax.train import loop

    monkeypatch.setattr(loop, "init_state", None)
    data = dataclasses.replace(recipe.data, min_area=10_000, max_bad_share=1.0)
    run = dataclasses.replace(recipe.run, validation_images=4)  # of six: not all that there are
    with pytest.raises(ValueError, match=r"no valid mask to validate on; check data\.val"):
        loop.train(dataclasses.replace(recipe, data=data, run=run), tmp_path / "run")
    assert not done
