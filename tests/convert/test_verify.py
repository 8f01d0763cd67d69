"""`verify` measures the distance between a converted model and Meta's."""

import pytest
from example_models import SMALL, random_photo

from samjax import Sam, convert

pytestmark = pytest.mark.parity

pytest.importorskip("torch")

STAGES = ("mask logits", "predicted IoU", "pixels of the masks that differ")


@pytest.fixture(scope="module")
def reference():
    from parity.reference import build_reference

    return build_reference(SMALL)


@pytest.fixture(scope="module")
def sam(reference, tmp_path_factory):
    import torch

    path = tmp_path_factory.mktemp("meta") / "sam.pth"
    torch.save(reference.state_dict(), path)
    return Sam(*convert.read(path))


def test_a_converted_model_agrees_at_every_stage(sam, reference):
    from samjax.convert.verify import verify

    errors = dict(verify(sam, reference, random_photo(48, 80)))
    assert list(errors) == [
        "pixels",
        "image embedding",
        *(f"{prompt}: {stage}" for prompt in ("point", "box") for stage in STAGES),
    ]
    bounds = {"pixels": 1e-6, "image embedding": 1e-5, "mask logits": 1e-4, "predicted IoU": 1e-4}
    for stage, error in errors.items():
        assert error <= bounds.get(stage.split(": ")[-1], 1e-5), stage


def test_another_model_does_not(sam):
    from parity.reference import build_reference
    from samjax.convert.verify import verify

    errors = dict(verify(sam, build_reference(SMALL, seed=1), random_photo(48, 80)))
    assert errors["pixels"] < 1e-6
    assert all(error > 1e-3 for stage, error in errors.items() if stage != "pixels")
