"""`samjax merge`: the average of two models, by the command; `samjax info` of what was tuned."""

import numpy as np
import pytest
from example_models import SMALL

WIDTH = SMALL.width


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    from example_models import random_sam

    from samjax import convert

    sam = random_sam(seed=5)
    path = tmp_path_factory.mktemp("tuned") / "tuned"
    convert.write(path, sam.config, sam.params)
    return path


def test_the_average_of_two_models_is_written_and_described(samjax, checkpoint, tuned, tmp_path):
    from samjax import convert

    out = tmp_path / "between.safetensors"
    code, printed, errors = samjax("merge", checkpoint, tuned, out, "--alpha", "0.25")
    assert (code, errors) == (0, "")
    assert printed.splitlines()[0] == str(out)
    assert convert.describe(out).checksum in printed
    base, other, merged = (
        convert.read(path)[1]["mask_decoder"]["iou_token"]["embedding"] for path in (checkpoint, tuned, out)
    )
    np.testing.assert_allclose(merged, 0.75 * base + 0.25 * other, rtol=1e-5, atol=1e-6)
    code, _, errors = samjax("merge", checkpoint, tuned, out, "--alpha", "0.25")
    assert code == 2
    assert "exists already" in errors


def test_a_share_that_is_none_is_an_error_of_one_line(samjax, checkpoint, tuned, tmp_path):
    code, printed, errors = samjax("merge", checkpoint, tuned, tmp_path / "out", "--alpha", "50")
    assert (code, printed) == (2, "")
    assert errors == "samjax: error: alpha is the share of the tuned weights, between 0 and 1, got 50.0\n"
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def change(checkpoint, tmp_path_factory):
    """A file of what was tuned of the checkpoint."""
    from samjax import convert
    from samjax.checkpoint import lazy
    from samjax.config import MaskThresholds
    from samjax.tuned import Base, Tuned

    described, token = convert.describe(checkpoint), "mask_decoder/iou_token/embedding"
    leaves = {token: lazy(np.zeros((1, WIDTH), np.float32))}
    tune = {"mode": "patterns", "patterns": ("iou_token", "of_nothing")}
    begun = Base(checkpoint.name, described.checksum, described.config)
    provenance = {"run": "mine", "step": 7, "metrics": {"val/iou": 0.5}}
    path = tmp_path_factory.mktemp("change") / "change.safetensors"
    convert.write_tuned(path, Tuned(begun, described.config, tune, 1.0, leaves, MaskThresholds(), provenance))
    return path


def test_info_says_what_was_tuned_and_of_which_base(samjax, checkpoint, change):
    from samjax import convert

    code, printed, errors = samjax("info", change, "--parameters")
    assert (code, errors) == (0, "")
    rows = {line[2:24].strip(): line[24:] for line in printed.splitlines()[1:-1]}
    assert (
        rows.items()
        >= {
            "base": "small.safetensors",
            "base's checksum": convert.describe(checkpoint).checksum,
            "mode": "patterns",
            "tune.patterns": "iou_token of_nothing",
            "parameters": f"{WIDTH:,}",
            "bytes": f"{4 * WIDTH:,}",
            "from run": "mine",
            "from step": "7",
            "from metrics": "val/iou 0.5",
        }.items()
    )
    assert printed.splitlines()[-1].split() == ["mask_decoder/iou_token/embedding", "1", "x", str(WIDTH)]
    code, _, errors = samjax("info", change, "--drop", "loss.*")
    assert (code, "there is nothing to drop" in errors) == (2, True)


def test_what_was_tuned_is_merged_with_its_base_and_no_other(samjax, checkpoint, tuned, change, tmp_path):
    from samjax import convert

    out = tmp_path / "half"
    code, printed, errors = samjax("merge", checkpoint, change, out, "--alpha", "0.5")
    assert (code, errors) == (0, "")
    assert convert.describe(out).checksum in printed
    before, after = (convert.read(path)[1]["mask_decoder"]["iou_token"]["embedding"] for path in (checkpoint, out))
    np.testing.assert_array_equal(after, before / 2)
    code, _, errors = samjax("merge", tuned, change, tmp_path / "other", "--alpha", "0.5")
    assert (code, "Load it with its own base" in errors) == (2, True)
    assert not (tmp_path / "other").exists()
