"""The study of ways to tune: which photos its runs see, for how many steps, and the table of what they find."""

import json

import numpy as np
import pytest


@pytest.fixture
def study(monkeypatch, root):
    monkeypatch.syspath_prepend(root / "benchmarks")
    import tuning_study

    return tuning_study


@pytest.fixture
def data(tmp_path):
    """A hundred photos of nuclei, by their annotations."""
    folder = tmp_path / "data" / "dsb2018"
    folder.mkdir(parents=True)
    photos = [{"id": 7 * number, "file_name": f"{number}.png"} for number in range(100)]
    masks = [{"id": number, "image_id": 7 * (number // 3)} for number in range(300)]
    (folder / "train.json").write_text(json.dumps({"images": photos, "annotations": masks}))
    return tmp_path / "data"


def file_of(options, name):
    return options[options.index(name) + 1].partition(",")[2]


def photos_of(options, name):
    from pathlib import Path

    coco = json.loads(Path(file_of(options, name)).read_text())
    ids = {image["id"] for image in coco["images"]}
    assert {mask["image_id"] for mask in coco["annotations"]} == ids
    assert len(coco["annotations"]) == 3 * len(ids)
    return ids


def test_photos_are_drawn_by_the_seed(study, data, tmp_path):
    drawn = []
    for seed in (0, 1, 0):
        options, count = study.sources(study.Run("study", "dsb2018", "lora", 10, seed, 1e-3), data, tmp_path)
        drawn.append(photos_of(options, "--data.train"))
        assert count == len(drawn[-1]) == 10
        assert file_of(options, "--data.val") == str(data / "dsb2018" / "val.json")
    assert drawn[0] == drawn[2] != drawn[1]
    options, count = study.sources(study.Run("study", "dsb2018", "lora", None, 0, 1e-3), data, tmp_path)
    assert (file_of(options, "--data.train"), count) == (str(data / "dsb2018" / "train.json"), 100)


def test_rates_are_tried_on_photos_of_training_that_are_held_out(study, data, tmp_path):
    options, count = study.sources(study.Run("rates", "dsb2018", "lora", 50, 100, 1e-3), data, tmp_path)
    held_out = photos_of(options, "--data.val")
    assert count == len(held_out) == 50
    assert not held_out & photos_of(options, "--data.train")


def test_a_run_has_as_many_steps_as_its_seconds_hold(study, monkeypatch):
    monkeypatch.setattr(study, "SECONDS", {"full": (2.0, 0.0), "decoder": (1.0, 0.5)})
    assert study.steps_in(300, "full", 10) == 150
    # 80 views of 10 photos are new in the first 20 steps of 4: those take 3 s each.
    assert study.steps_in(300, "decoder", 10) == 20 + 240
    assert study.steps_in(300, "decoder", 500) == 100


def test_every_way_has_every_number_of_photos_and_seed_once(study):
    names = [run.name for run in study.study()]
    assert len(set(names)) == len(names) == 5 * 3 * 3 + 2
    assert {run.name for run in study.trials()}.isdisjoint(names)
    assert all(study.RATES[way] in tried for way, tried in study.TRIED.items())


def test_the_table_has_means_and_spread_over_seeds(study):
    def result(seed, after):
        scores = {f"val/{name}": 0.5 for name in study.SCORES} | {f"retain/{name}": 0.6 for name in study.SCORES}
        run = study.Run("study", "dsb2018", "lora", 10, seed, 1e-3)._asdict()
        run |= {"training_photos": 10, "trained": 1234, "peak_bytes": 2 * 10**9, "before": scores}
        return run | {"after": {**scores, "val/iou_1": after}}

    found = [0.7, 0.8, 0.9]
    rows = study.table([result(*pair) for pair in enumerate(found)]).splitlines()
    assert "| 10 | lora | 1,234 | 0.800 ± 0.100 | 0.500 ± 0.000 |" in rows[-1]
    assert np.std(found, ddof=1) == pytest.approx(0.1)
    assert "| before |  | 0.500 | 0.500 |" in rows[-2]
