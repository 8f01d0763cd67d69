"""`samjax evaluate` resumes a run only where model, settings and data are the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation.example_evaluation import metrics
from PIL import Image
from scipy.io import savemat


def test_points_on_real_photos_go_on_and_do_not_mix(samjax, checkpoint, test_data, tmp_path):
    """A small random model: the numbers mean nothing, but are there."""
    out = tmp_path / "out"
    options = ["points", "--data", f"sa1b={test_data / 'sa_mini' / 'val'}", "--limit", 2, "--objects-per-image", 3]
    options += ["--points", 1, "--checkpoint", checkpoint, "--out", out]
    code, printed, errors = samjax("evaluate", *options)
    assert code == 0, errors
    assert "points: 2 photo(s)" in printed
    found = metrics(out)
    assert found["objects"] == 6
    assert 0 < found["mIoU@1"] < found["best of 3@1"] < 1
    records = (out / "records" / "0-of-1.jsonl").read_bytes()
    assert samjax("evaluate", *options)[0] == 0
    assert (out / "records" / "0-of-1.jsonl").read_bytes() == records
    assert metrics(out) == found
    code, _, errors = samjax("evaluate", *options, "--seed", 1)
    assert code == 2
    assert "holds results of another evaluation:\n  data.seed: 0, now 1\n" in errors
    code, _, errors = samjax("evaluate", *options, "--dtype", "bfloat16")
    assert code == 2
    assert 'model.dtype: "float32", now "bfloat16"' in errors


def test_other_annotations_of_the_same_photos_are_other_data(tmp_path, monkeypatch):
    from samjax.evaluation.command import Data

    photos, masks = tmp_path / "data" / "images", tmp_path / "data" / "masks"
    for folder in (photos, masks):
        folder.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(photos / "a.png")
    Image.fromarray(np.eye(30, 40) > 0).save(masks / "a.png")
    data = Data(f"pairs={photos},{masks}")
    monkeypatch.chdir(tmp_path)
    out = Path("data/images/results")  # within the data, and not written as the data's path is
    *_, before = data.open(out)
    out.mkdir()
    (out / "results.json").write_text("{}")
    assert data.open(out)[-1] == before
    Image.fromarray(np.random.default_rng(0).random((30, 40)) > 0.5).save(masks / "a.png")
    assert data.open(out)[-1] != before


def test_results_are_not_those_of_annotations_that_were_there_before(samjax, boxy, coco, tmp_path, monkeypatch):
    images, _, content = coco
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    options = ["boxes", "--data", f"coco={images}, ~/annotations.json", "--predictor", boxy, "--out", "out"]
    assert samjax("evaluate", *options)[0] == 0
    assert "2 of 2 photo(s) had been judged before" in samjax("evaluate", *options)[1]
    content = json.dumps(content)
    (tmp_path / "annotations.json").write_text(content.replace('"category_id": 3', '"category_id": 4', 1))
    code, _, errors = samjax("evaluate", *options)
    assert code == 2
    assert "holds results of another evaluation:\n  data.annotations: " in errors


def test_edges_are_not_those_of_annotators_that_left(samjax, tmp_path):
    """In a folder that has their split's name too."""
    drawn = [np.repeat([[1, 2]], 30, 0).repeat([column, 40 - column], 1).astype(np.uint16) for column in (10, 12, 20)]
    cells = np.empty((1, 3), object)
    for number, segmentation in enumerate(drawn):
        boundary = np.diff(segmentation, axis=1, append=segmentation[:, -1:]).astype(np.uint8)
        cells[0, number] = {"Segmentation": segmentation, "Boundaries": boundary}
    for kind in ("images", "groundTruth"):
        (tmp_path / "bsds" / kind / "val").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "bsds/images/val/a.jpg")
    savemat(tmp_path / "bsds/groundTruth/val/a.mat", {"groundTruth": cells})
    options = ["human-edges", "--data", tmp_path / "bsds", "--split", "val", "--out", tmp_path / "bsds" / "out"]
    assert samjax("evaluate", *options)[0] == 0
    assert metrics(tmp_path / "bsds" / "out")["annotators per photo"] == 3
    assert "1 of 1 photo(s) had been judged before" in samjax("evaluate", *options)[1]
    savemat(tmp_path / "bsds/groundTruth/val/a.mat", {"groundTruth": cells[:, :2]})
    code, _, errors = samjax("evaluate", *options)
    assert code == 2
    assert "holds results of another evaluation:\n  data.folder: " in errors


def test_mended_annotations_judge_the_same_masks_anew(samjax, boxy, coco, tmp_path, monkeypatch):
    """Without --annotations, and by a path that the shell has not looked at."""
    images, _, content = coco
    monkeypatch.setenv("HOME", str(tmp_path))
    entries = content["annotations"]
    found = [{**{name: entry[name] for name in ("image_id", "category_id", "bbox")}, "score": 0.9} for entry in entries]
    (tmp_path / "found.json").write_text(json.dumps(found))
    options = ["--data", f"coco={images}, ~/truth.json", "--detections", "found.json", "--predictor", boxy]
    results = []
    for annotations in (entries[1:], [{**entry, "area": None} for entry in entries]):
        (tmp_path / "truth.json").write_text(json.dumps({**content, "annotations": annotations}))
        code, printed, errors = samjax("evaluate", "detections", *options, "--out", "out")
        assert code == 0, errors
        results.append(json.loads((tmp_path / "out" / "results.json").read_text()))
    assert "2 of 2 photo(s) had been judged before" in printed
    before, after = (result["metrics"]["box AP (detector)"] for result in results)
    assert before < after == pytest.approx(1)
    assert results[0]["given"]["annotations"] == str(tmp_path / "truth.json")
    assert results[0]["given"]["annotations_sha256"] != results[1]["given"]["annotations_sha256"]
    (tmp_path / "found.json").write_text(json.dumps(found[1:]))
    code, _, errors = samjax("evaluate", "detections", *options, "--out", "out")
    assert code == 2
    assert "holds results of another evaluation:\n  settings.detections: " in errors
