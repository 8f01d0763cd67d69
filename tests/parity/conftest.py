"""Torch and the reference; imported by fixtures only, so that the other tests never load them."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def segment_anything():
    pytest.importorskip("torch", reason="the reference needs torch")
    from parity.reference import import_segment_anything

    return import_segment_anything()


@pytest.fixture(scope="session")
def pair(segment_anything):
    """Build a configuration twice, with the same random weights: (the reference's predictor, our model)."""
    import jax
    from parity.reference import build_reference, params_from_reference

    from samjax import Sam

    def build(config, seed: int = 0):
        reference = build_reference(config, seed)
        params = jax.tree.map(jax.numpy.asarray, params_from_reference(reference))
        return segment_anything.SamPredictor(reference), Sam(config, params)

    return build


@pytest.fixture(scope="session")
def hq_pair():
    """Build a configuration with HQ-SAM's token twice, with the same random weights: (its authors' predictor, our
    model)."""
    pytest.importorskip("torch", reason="the reference needs torch")
    if importlib.util.find_spec("segment_anything_hq") is None:
        pytest.skip("the reference needs segment-anything-hq")
    import jax
    from parity.hq_reference import build_hq_reference, import_segment_anything_hq
    from parity.reference import params_from_reference

    from samjax import Sam

    package = import_segment_anything_hq()

    def build(config, seed: int = 0):
        reference = build_hq_reference(config, seed)
        params = jax.tree.map(jax.numpy.asarray, params_from_reference(reference))
        return package.SamPredictor(reference), Sam(config, params)

    return build


@pytest.fixture(scope="session")
def bundled(segment_anything, tmp_path_factory):
    """(Meta's model with the weights that `samjax-tiny` is exported to, our model)."""
    import torch
    from parity.reference import build_reference

    import samjax
    from samjax import assets, convert

    exported = tmp_path_factory.mktemp("export") / "samjax-tiny.pth"
    with pytest.warns(UserWarning, match="no place for the model's own thresholds"):
        convert.convert(assets.model(), exported)
    reference = build_reference(samjax.VARIANTS["vit_tiny"])
    reference.load_state_dict(torch.load(exported), strict=True)
    return reference, samjax.load()


@pytest.fixture(scope="session")
def small(pair):
    from example_models import SMALL

    return pair(SMALL)
