"""`--dtype`: the same option wherever something is computed."""

import json

import numpy as np
import pytest
from PIL import Image

from samjax.ops.rle import decode_rle

EVERYTHING = ("--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0")


@pytest.mark.parametrize("command", [("segment",), ("everything",), ("warmup",), ("demo",), ("evaluate", "boxes")])
def test_every_command_that_computes_has_it_with_the_same_words(samjax, capsys, command):
    with pytest.raises(SystemExit) as end:
        samjax(*command, "--help")
    assert not end.value.code
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--dtype {float32,bfloat16} Dtype to compute in. bfloat16 needs less memory" in told


def test_a_photo_segmented_in_bfloat16_has_nearly_the_same_mask(samjax, checkpoint, photo, tmp_path):
    masks = {}
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / dtype
        given = ("--checkpoint", checkpoint, "--point", "40,30", "--out", out, "--dtype", dtype)
        assert samjax("segment", photo, *given)[0] == 0
        report = json.loads((out / "blobs.json").read_text())
        assert report["model"]["dtype"] == dtype
        masks[dtype] = decode_rle(report["masks"][0]["segmentation"])
    assert (masks["float32"] != masks["bfloat16"]).mean() < 0.05


@pytest.mark.heavy
def test_everything_is_found_in_bfloat16(samjax, checkpoint, photo, tmp_path):
    given = ("--checkpoint", checkpoint, "--out", tmp_path / "out", "--dtype", "bfloat16")
    code, printed, _ = samjax("everything", photo, *given, *EVERYTHING)
    assert code == 0
    assert "mask" in printed


def test_an_evaluation_in_bfloat16_says_so(samjax, checkpoint, tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    square = np.zeros((40, 60), np.uint8)
    square[10:30, 15:40] = 255
    Image.fromarray(np.dstack([square] * 3)).save(images / "square.png")
    Image.fromarray(square).save(masks / "square.png")
    given = ("--checkpoint", checkpoint, "--out", tmp_path / "out", "--dtype", "bfloat16")
    code, _, errors = samjax("evaluate", "boxes", "--data", f"pairs={images},{masks}", *given)
    assert code == 0, errors
    assert json.loads((tmp_path / "out" / "results.json").read_text())["model"]["dtype"] == "bfloat16"
