"""`samjax merge`: the average of two checkpoints, by the command."""

import numpy as np
import pytest


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
