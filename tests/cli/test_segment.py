"""`samjax segment`, and what all sub-commands do alike with photos, names and devices."""

import json
import os
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from samjax.ops.rle import decode_rle

EVERYTHING = ("--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0")


def test_segment_writes_an_overlay_masks_and_json(samjax, checkpoint, photo, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = samjax(
        "segment",
        photo,
        "--checkpoint",
        checkpoint,
        "--point",
        "40,30",
        "--point",
        "5,5,0",
        "--multimask",
        "--out",
        out,
    )
    assert code == 0
    assert "3 mask(s)" in printed
    assert {path.name for path in out.iterdir()} == {
        "blobs_overlay.png",
        "blobs_mask_0_0.png",
        "blobs_mask_0_1.png",
        "blobs_mask_0_2.png",
        "blobs.json",
    }
    report = json.loads((out / "blobs.json").read_text())
    assert report["prompt"]["points"] == [[40, 30, 1], [5, 5, 0]]
    assert report["image"] == str(photo)
    assert report["size"] == {"height": 60, "width": 90}
    assert len(report["masks"]) == 3
    for record in report["masks"]:
        picture = np.asarray(Image.open(out / record["file"]))
        mask = decode_rle(record["segmentation"])
        np.testing.assert_array_equal(picture, mask * 255)
        assert record["area"] == mask.sum()


def test_several_boxes_are_several_objects(samjax, checkpoint, photo, tmp_path):
    code, _, _ = samjax(
        "segment",
        photo,
        "--checkpoint",
        checkpoint,
        "--box",
        "5,5,50,40",
        "--box",
        "30,10,80,55",
        "--out",
        tmp_path / "o",
    )
    assert code == 0
    assert [record["object"] for record in json.loads((tmp_path / "o/blobs.json").read_text())["masks"]] == [0, 1]


def test_a_mask_file_is_a_prompt(samjax, checkpoint, photo, tmp_path):
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30")
    assert samjax(*common, "--out", tmp_path / "plain")[0] == 0
    assert samjax(*common, "--mask", tmp_path / "mask.png", "--out", tmp_path / "masked")[0] == 0
    plain, masked = (json.loads((tmp_path / name / "blobs.json").read_text())["masks"] for name in ("plain", "masked"))
    assert plain[0]["predicted_iou"] != masked[0]["predicted_iou"]


def test_a_label_map_is_no_mask_and_stops_before_anything_is_computed(samjax, photo, tmp_path):
    Image.fromarray(np.arange(5400, dtype=np.uint8).reshape(60, 90) % 4).save(tmp_path / "labels.png")
    code, _, error = samjax("segment", photo, "--mask", tmp_path / "labels.png", "--out", tmp_path / "out")
    assert code == 2
    assert "labels.png: it has the numbers 1, 2, 3: these look like several objects" in error
    assert not (tmp_path / "out").exists()


def test_stored_embeddings_give_the_same_answer(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30")
    samjax(*common, "--save-embeddings", tmp_path / "store", "--out", tmp_path / "first")
    assert len(list((tmp_path / "store").iterdir())) == 1
    _, printed, _ = samjax(*common, "--embeddings", tmp_path / "store", "--out", tmp_path / "second")
    assert printed.splitlines()[-1].startswith("1 of 1 embedding(s) reused")
    first, second = (json.loads((tmp_path / name / "blobs.json").read_text()) for name in ("first", "second"))
    assert first == second


def test_one_bad_photo_does_not_stop_the_others(samjax, checkpoint, photo, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    code, printed, error = samjax(
        "segment", tmp_path / "broken.jpg", photo, tmp_path / "absent.png",
        "--checkpoint", checkpoint, "--point", "40,30", "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert "blobs.png: 1 mask(s)" in printed
    assert "2 of 3 image(s) failed" in error
    assert "broken.jpg cannot be read as an image" in error
    assert "absent.png" in error
    assert (tmp_path / "out" / "blobs_overlay.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least one --point, --box or --mask"),
        (["--point", "1"], "a point is X,Y or X,Y,LABEL"),
        (["--point", "a,b"], "got 'a,b'"),
        (["--point", "1,2,5"], "label is 1"),
        (["--box", "1,2,3"], "a box is X0,Y0,X1,Y1"),
        (["--box", "50,40,5,5"], "x0 < x1"),
        (["--box", "5,5,50,40", "--box", "1,1,9,9", "--point", "2,2"], "cannot tell which"),
    ],
)
def test_bad_prompts_are_one_clear_error_and_write_nothing(samjax, checkpoint, photo, tmp_path, arguments, message):
    code, _, error = samjax("segment", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_photos_may_have_any_name(samjax, checkpoint, photo, tmp_path):
    """No UTF-8, a line end, an escape sequence."""
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"two\nlines.png", b"\x1b[31mred.png")]
    for name in names:
        shutil.copy(photo, tmp_path / name)
    (tmp_path / "broken\x1b\udce9.png").touch()
    photos = [tmp_path / name for name in (*names, "broken\x1b\udce9.png")]
    options = "--checkpoint", checkpoint, "--out", tmp_path / "out"
    for _ in range(2):
        code, printed, errors = samjax("segment", *photos, "--box", "10,10,40,40", *options)
        assert code == 2
        assert "1 of 4 image(s) failed" in errors
        for text in (r"caf\udce9.png: 1 mask", r"two\nlines.png: 1 mask", r"\x1b[31mred.png: 1 mask"):
            assert text in printed
        assert r"broken\x1b\udce9.png cannot be read" in errors
        assert "\x1b" not in printed + errors
    report = json.loads((tmp_path / "out" / "caf\udce9.json").read_text())
    assert report["image"].endswith("/caf%E9.png")
    assert [record["file"] for record in report["masks"]] == ["caf%E9_mask_0.png"]
    samjax("segment", photos[0], "--point", "40,30", "--point", "5,5,0", "--multimask", *options)
    assert not (tmp_path / "out" / "caf\udce9_mask_0.png").exists()  # of the run before

    code, printed, errors = samjax("everything", *photos, *options[:2], "--out", tmp_path / "all", *EVERYTHING)
    assert code == 2
    assert r"broken\x1b\udce9.png cannot be read" in errors
    assert r"caf\udce9.png: " in printed
    assert "\x1b" not in printed + errors
    assert len(json.loads((tmp_path / "all" / "annotations.json").read_text())["images"]) == 3


def test_a_device_that_is_not_there_is_one_clear_error(run_python, photo, tmp_path):
    commands = [
        ["segment", photo, "--point", "5,5", "--out", tmp_path],
        ["everything", photo, "--out", tmp_path],
        ["warmup", "--checkpoint", "samjax-tiny"],
        ["demo", "--out", tmp_path],
        [
            "evaluate",
            "points",
            "--data",
            f"pairs={tmp_path},{tmp_path}",
            "--checkpoint",
            "samjax-tiny",
            "--out",
            tmp_path,
        ],
        ["train", "tiny", "--data.train", f"pairs={tmp_path},{tmp_path}", "--out", tmp_path / "run"],
    ]
    code = f"""
import contextlib, io
from samjax.cli import command
for words in {[list(map(str, words)) for words in commands]}:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert command.main(words) == 2, words
    (line,) = errors.getvalue().splitlines()
    assert line.startswith("samjax: error: JAX_PLATFORMS=nonsense asks for a device that JAX cannot use here ("), line
"""
    run_python(code, JAX_PLATFORMS="nonsense", SAMJAX_CACHE=str(tmp_path / "cache"))


def test_photos_that_differ_in_their_ending_or_not_at_all(samjax, checkpoint, photo, tmp_path):
    Image.open(photo).save(tmp_path / "blobs.webp")
    common = ("--checkpoint", checkpoint, "--point", "1,1", "--out", tmp_path / "o")
    assert samjax("segment", photo, tmp_path / "blobs.webp", *common)[0] == 0
    assert {path.name for path in (tmp_path / "o").glob("*.json")} == {"blobs_png.json", "blobs_webp.json"}
    code, _, error = samjax("segment", photo, photo, *common)
    assert code == 2
    assert "overwrite each other" in error


def test_masks_of_an_earlier_run_do_not_stay_behind(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30", "--out", tmp_path / "out")
    samjax(*common, "--multimask")
    (tmp_path / "out" / "blobs_mask_mine.png").touch()
    samjax(*common)
    assert {path.name for path in (tmp_path / "out").glob("*mask*")} == {"blobs_mask_0.png", "blobs_mask_mine.png"}


def test_a_folder_that_cannot_be_written_is_named_before_any_work(samjax, photo, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = samjax("segment", photo, "--checkpoint", "absent", "--point", "1,1", "--out", tmp_path / "file")
    assert code == 2
    assert f"cannot write into the folder {tmp_path / 'file'}: File exists" in error


def test_embeddings_are_not_looked_for_in_a_folder_that_is_not_there(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "1,1", "--out", tmp_path / "out")
    code, _, error = samjax(*common, "--embeddings", tmp_path / "absent")
    assert code == 2
    assert "there is no folder" in error
    code, _, error = samjax(*common, "--embeddings", tmp_path, "--save-embeddings", tmp_path)
    assert code == 2
    assert "give one of them" in error


def test_another_input_size_may_be_asked_for(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30", "--out", tmp_path / "out")
    assert samjax(*common, "--image-size", "48", "72")[0] == 0
    code, _, error = samjax(*common, "--image-size", "50", "72")
    assert code == 2
    assert "multiples of the patch size 8" in error


def test_points_outside_the_photo_are_answered_with_a_warning(samjax, checkpoint, photo, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, error = samjax(
            "segment", photo, "--checkpoint", checkpoint, "--point", "400,30", "--out", tmp_path / "out"
        )
    assert code == 0
    assert f"samjax: warning: {photo}: 1 point(s) or box corner(s) lie outside the image, e.g. (400, 30)" in error


def test_an_unknown_checkpoint_is_named(samjax, photo, tmp_path):
    code, _, error = samjax("segment", photo, "--checkpoint", "vit_bb", "--point", "1,1", "--out", tmp_path / "out")
    assert code == 2
    assert "did you mean 'vit_b'" in error
