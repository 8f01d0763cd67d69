"""`verify` measures the distance between a converted model and Meta's."""

import pytest
from example_models import SMALL, random_photo

from samjax import Sam, convert

pytestmark = pytest.mark.parity

pytest.importorskip("torch")

STAGES = ("mask logits", "predicted IoU", "mask pixels that differ")


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

    stages = verify(sam, reference, random_photo(48, 80))
    assert [stage.name for stage in stages] == [
        "pixels",
        "image embedding",
        *(f"{prompt}: {stage}" for prompt in ("point", "box") for stage in STAGES),
    ]
    assert all(stage.passed for stage in stages), stages


def test_another_model_does_not(sam):
    from parity.reference import build_reference

    from samjax.convert.verify import verify

    pixels, *others = verify(sam, build_reference(SMALL, seed=1), random_photo(48, 80))
    assert pixels.passed
    assert all(stage.error > 1e-3 for stage in others)


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors", "native", "wrapped.pth"])
def test_the_reference_is_loaded_from_any_format(reference, tmp_path, name):
    import torch

    from samjax.convert.verify import load_reference

    torch.save(reference.state_dict(), tmp_path / "source.pth")
    if name == "wrapped.pth":
        torch.save({"model": reference.state_dict(), "epoch": 3}, tmp_path / name)
    else:
        convert.convert(tmp_path / "source.pth", tmp_path / name)
    loaded = load_reference(tmp_path / name).state_dict()
    for key, tensor in reference.state_dict().items():
        assert torch.equal(loaded[key], tensor), key
