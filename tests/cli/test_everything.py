"""`samjax everything`: its options, what it writes, and what it refuses."""

import inspect
import json
from typing import get_args

import jax
import numpy as np
import pytest
from example_models import random_photo
from PIL import Image
from pycocotools.coco import COCO

from samjax.cli.everything import FormatName, parse_bytes, process_share

EVERYTHING = ("--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0")


def test_every_format_can_be_chosen():
    from samjax.writers import FORMATS

    assert [*get_args(FormatName), "overlay"] == list(FORMATS)


def test_everything_writes_a_dataset_and_overlays_of_a_folder(samjax, checkpoint, photo, tmp_path):
    Image.fromarray(random_photo(60, 90, seed=1)).save(tmp_path / "second.jpg")
    common = (
        "everything",
        photo.parent,
        tmp_path / "second.jpg",
        "--checkpoint",
        checkpoint,
        "--out",
        tmp_path / "out",
    )
    code, printed, _ = samjax(*common, *EVERYTHING)
    assert code == 0
    dataset = COCO(str(tmp_path / "out" / "annotations.json"))
    assert [image["file_name"] for image in dataset.loadImgs(dataset.getImgIds())] == ["blobs.png", "second.jpg"]
    count = len(dataset.getAnnIds(imgIds=[1]))
    assert count > 0
    line = next(line for line in printed.splitlines() if line.startswith(f"{photo}: {count} mask"))
    assert line.endswith(f"-> {tmp_path / 'out' / 'blobs_overlay.jpg'}")
    assert printed.count("compiling for photos of about") == 1  # which the two photos share
    assert "compiling for photos of about 90 x 60 pixels" in printed
    code, printed, _ = samjax(*common, *EVERYTHING)
    assert code == 0
    assert "2 photo(s) were done before and are skipped" in printed


def test_everything_takes_thresholds_that_suit_the_bundled_model(samjax, tmp_path):
    from samjax import SamAutomaticMaskGenerator, assets, hub, read_image

    photo = assets.photo("astronaut")
    arguments = ("--points-per-side", "16", "--convert-to-rle", "--no-overlay", "--out", tmp_path)
    assert samjax("everything", photo, *arguments)[0] == 0
    records = json.loads((tmp_path / "astronaut.json").read_text())
    assert len(records) >= 3
    assert min(record["predicted_iou"] for record in records) < 0.88
    generator = SamAutomaticMaskGenerator(hub.load(), 16, output_mode="coco_rle", **hub.everything_thresholds())
    assert records == generator.generate(read_image(photo))
    meta = inspect.signature(SamAutomaticMaskGenerator).parameters
    assert hub.everything_thresholds("vit_b") == {name: meta[name].default for name in hub.everything_thresholds()}
    assert samjax("everything", photo, *arguments, "--pred-iou-thresh", "0.88")[0] == 0
    assert len(json.loads((tmp_path / "astronaut.json").read_text())) < len(records)


def test_everything_writes_what_the_generator_finds(samjax, checkpoint, photo, tmp_path):
    from samjax import SamAutomaticMaskGenerator, hub, read_image

    arguments = ("--convert-to-rle", "--format", "labelmap", *EVERYTHING, "--nms", "mask", "--no-overlay")
    code, _, _ = samjax("everything", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out", *arguments)
    assert code == 0
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"blobs.json", "blobs_labels.png"}
    generator = SamAutomaticMaskGenerator(
        hub.load(checkpoint), 4, pred_iou_thresh=0.0, stability_score_thresh=0.0, output_mode="coco_rle", nms="mask"
    )
    records = generator.generate(read_image(photo))
    assert json.loads((tmp_path / "out" / "blobs.json").read_text()) == records
    labels = np.asarray(Image.open(tmp_path / "out" / "blobs_labels.png"))
    assert labels.shape == (60, 90)
    assert labels.max() <= len(records)


def test_everything_names_photos_that_fail_and_does_the_others(samjax, checkpoint, photo, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    inputs = (tmp_path / "broken.jpg", photo)
    code, printed, error = samjax(
        "everything", *inputs, "--checkpoint", checkpoint, "--out", tmp_path / "out", *EVERYTHING
    )
    assert code == 2
    assert f"{photo}: " in printed
    assert "1 photo(s) failed" in error
    assert "broken.jpg cannot be read as an image" in error
    assert (tmp_path / "out" / "blobs_overlay.jpg").exists()


def test_everything_by_several_processes_is_one_dataset(samjax, checkpoint, photo, tmp_path):
    Image.fromarray(random_photo(60, 90, seed=1)).save(tmp_path / "second.png")
    common = ("everything", photo, tmp_path / "second.png", "--checkpoint", checkpoint, "--out", tmp_path / "out")
    for index in (1, 0):
        assert not (tmp_path / "out" / "annotations.json").exists()
        code, _, _ = samjax(*common, *EVERYTHING, "--process-index", index, "--process-count", 2)
        assert code == 0
    assert len(COCO(str(tmp_path / "out" / "annotations.json")).getImgIds()) == 2


def test_everything_explains_its_memory_and_computes_nothing(samjax, checkpoint, photo, tmp_path):
    common = ("everything", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    code, printed, _ = samjax(*common, *EVERYTHING, "--explain")
    assert code == 0
    assert printed.startswith("1 photo(s) of 90 x 60 pixels")
    assert len(printed.splitlines()) > 1
    assert not (tmp_path / "out").exists()


def test_everything_explains_similar_sizes_together_and_names_unreadable_photos(samjax, checkpoint, photo, tmp_path):
    Image.fromarray(random_photo(70, 100, seed=1)).save(tmp_path / "second.png")
    (tmp_path / "broken.jpg").touch()
    inputs = (tmp_path / "broken.jpg", photo, tmp_path / "second.png")
    arguments = ("--checkpoint", checkpoint, "--out", tmp_path / "out", *EVERYTHING, "--explain")
    code, printed, error = samjax("everything", *inputs, *arguments)
    assert code == 2
    assert [line for line in printed.splitlines() if "photo(s)" in line] == [
        "2 photo(s), the largest of 100 x 70 pixels"
    ]
    assert "broken.jpg cannot be read" in error


def test_everything_refuses_a_memory_budget_before_any_work(samjax, checkpoint, photo, tmp_path):
    arguments = ("--checkpoint", checkpoint, "--out", tmp_path / "out", *EVERYTHING, "--memory-budget", "1KB")
    code, _, error = samjax("everything", photo, *arguments)
    assert code == 2
    assert "a memory budget of" in error
    assert "failed" not in error
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory-budget", "lots"], "a memory budget is a number of bytes"),
        (["--process-index", "0"], "belong together"),
        (["--process-index", "2", "--process-count", "2"], "counts from 0"),
        (["--polygons", "--polygon-tolerance", "-1"], "number of pixels from 0 on"),
        (["--overlap", "5"], "overlap belongs to tile"),
    ],
)
def test_everything_refuses_senseless_arguments(samjax, checkpoint, photo, tmp_path, arguments, message):
    code, _, error = samjax("everything", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_everything_names_a_folder_that_cannot_be_written_before_any_work(samjax, photo, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = samjax("everything", photo, "--checkpoint", "absent", "--out", tmp_path / "file")
    assert code == 2
    assert f"cannot write into the folder {tmp_path / 'file'}: File exists" in error


def test_everything_takes_its_share_from_jax_distributed_where_that_runs(monkeypatch):
    assert process_share(None, None) == (0, 1)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert process_share(None, None) == (2, 4)
    assert process_share(0, 1) == (0, 1)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("8mb", 8 * 10**6)]
)
def test_memory_budgets_may_have_units(text, size):
    assert parse_bytes(text) == size
