"""The mode that a run chooses for itself: by its photos, once, and it says which and why."""

import dataclasses

import pytest
from example_training import PICO, write_shapes

from samjax.train import automatic, run_folder
from samjax.train.automatic import settled
from samjax.train.config import DataConfig, TrainConfig, TuneConfig
from samjax.train.trainable import chosen_modes


def recipe(folder, **tune):
    tune = TuneConfig(**{"mode": "auto", "prompt_encoder": True, **tune})
    return TrainConfig(tune=tune, data=DataConfig(train=(f"sa1b={folder}",)))


def test_few_photos_leave_the_encoder_as_it_is_and_many_do_not(tmp_path, monkeypatch):
    config = recipe(write_shapes(tmp_path / "data", 3))
    few, said = settled(config, tmp_path / "run")
    assert few.tune == TuneConfig(mode="decoder", prompt_encoder=True)
    assert said.startswith("tune.mode auto: decoder, because 3 photos are too few")
    assert "features" not in said  # whether they are kept is another decision
    monkeypatch.setattr(automatic, "MANY", 3)
    many, said = settled(config, tmp_path / "run")
    assert many.tune == TuneConfig(mode="lora+decoder", prompt_encoder=True)
    assert said.startswith("tune.mode auto: lora+decoder, because 3 photos are enough")
    assert [mode.name for mode in chosen_modes(many.tune)] == ["lora", "decoder"]


@pytest.fixture
def begun(tmp_path):
    """A recipe, and the folder of its run, which has begun with another mode than it would have now."""
    config = recipe(write_shapes(tmp_path / "data", 3), rank=2)
    (tmp_path / "run" / run_folder.CHECKPOINTS / "5").mkdir(parents=True)
    tune = dataclasses.replace(config.tune, mode="lora+decoder")
    run_folder.write_config(tmp_path / "run", dataclasses.replace(config, tune=tune), PICO)
    return config, tmp_path / "run"


def test_a_run_keeps_the_mode_it_began_with(begun):
    config, folder = begun
    now, said = settled(config, folder)
    assert now.tune == dataclasses.replace(config.tune, mode="lora+decoder")
    assert said == "tune.mode auto: lora+decoder, as this run began"
    run_folder.check_same_run(folder, now)


def test_other_options_than_those_it_began_with_are_refused(begun):
    config, folder = begun
    changed = dataclasses.replace(config, tune=dataclasses.replace(config.tune, prompt_encoder=False))
    with pytest.raises(ValueError, match=r"tune\.prompt_encoder: True, now False"):
        run_folder.check_same_run(folder, settled(changed, folder)[0])


def test_a_mode_that_is_named_is_nobody_elses_affair(tmp_path):
    config = recipe(tmp_path / "nowhere", mode="parser")
    assert settled(config, tmp_path) == (config, None)


def test_data_that_are_missing_are_an_error_of_their_option(tmp_path):
    with pytest.raises(ValueError, match=r"^data\.train: sa1b=.*nowhere"):
        settled(recipe(tmp_path / "nowhere"), tmp_path / "run")


def test_undecided_it_trains_nothing(tmp_path):
    with pytest.raises(ValueError, match="auto is decided by a run's data"):
        chosen_modes(recipe(tmp_path).tune)
