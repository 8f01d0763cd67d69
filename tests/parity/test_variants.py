"""The official variants: ViT-B as it is, ViT-L and ViT-H in their widths but not their depths, all by their names."""

import dataclasses

import jax
import pytest
from parity.comparison import CASES, EMBEDDING_BAR, assert_same_answer, embedding_error, prompts_of
from parity.reference import layout

from samjax import VARIANTS
from samjax.model import abstract_params

pytestmark = pytest.mark.parity


def shallow(variant: str, side: int = 256):
    """A window block and a global block at the variant's width; windows do not divide the grid."""
    config = VARIANTS[variant]
    encoder = dataclasses.replace(config.image_encoder, depth=2, global_blocks=(1,), image_size=(side, side))
    return dataclasses.replace(config, image_encoder=encoder)


@pytest.fixture(scope="module", params=["vit_b", "vit_l", "vit_h", "vit_tiny"])
def encoded(request, photos, pair):
    variant = request.param
    predictor, sam = pair(shallow(variant) if variant in ("vit_l", "vit_h") else VARIANTS[variant])
    predictor.set_image(photos["truck"])
    return predictor, sam, sam.encode(photos["truck"])


def test_embeddings(encoded):
    predictor, _, embedding = encoded
    assert embedding_error(embedding, predictor) <= EMBEDDING_BAR


@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one mask"])
@pytest.mark.parametrize("case", ["one point", "a box and four points", "all together"])
def test_predictions(encoded, case, multimask):
    predictor, sam, embedding = encoded
    assert_same_answer(sam, embedding, predictor, CASES[case], multimask=multimask)


def assert_half_precision_agrees(sam, photo, embedding):
    """bfloat16 gives at least 99 % of the pixels that float32 gives. Also of an untrained model, whose logits are all
    near the threshold."""
    half = sam.with_dtype("bfloat16")
    half_embedding = half.encode(photo)
    for name in ("one point", "a box and four points"):
        prompts = prompts_of(CASES[name].arguments(photo.shape[:2], sam.config.mask_size))
        masks = sam.masks(sam.predict(embedding, prompts), embedding)
        half_masks = half.masks(half.predict(half_embedding, prompts), half_embedding)
        assert 0.01 < masks.mean() < 0.99  # empty or full masks would agree with anything
        assert (masks == half_masks).mean() >= 0.99


def test_half_precision(encoded, photos):
    _, sam, embedding = encoded
    assert_half_precision_agrees(sam, photos["truck"], embedding)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["dog", "groceries"])
def test_half_precision_of_vit_b_on_more_photos(pair, photos, name):
    _, sam = pair(VARIANTS["vit_b"])
    assert_half_precision_agrees(sam, photos[name], sam.encode(photos[name]))


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_parameters_have_the_references_names_and_shapes(segment_anything, variant):
    """At full size, without the memory: shapes only on both sides."""
    import torch

    with torch.device("meta"):
        reference = segment_anything.sam_model_registry[variant]()
    state = reference.state_dict()
    theirs = {
        "/".join(path): tuple(state[name].shape[axis] for axis in axes) if axes else tuple(state[name].shape)
        for name, (path, axes) in layout(reference).items()
    }
    ours = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(VARIANTS[variant]))
    }
    assert ours == theirs
