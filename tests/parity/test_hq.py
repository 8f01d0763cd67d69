"""HQ-SAM: masks, scores and everything in a photo are those of its authors' code, and so are the files."""

import dataclasses

import jax
import numpy as np
import pytest
from example_models import SHAPES, SMALL, random_photo, shapes_photo, shapes_sam
from parity.comparison import (
    CASES,
    EMBEDDING_BAR,
    IOU_BAR,
    LOGITS_BAR,
    MASK_BAR,
    embedding_error,
    prompts_of,
    relative_error,
)
from parity.reference import layout
from parity.test_amg import assert_same

import samjax
from samjax import VARIANTS, SamAutomaticMaskGenerator, SamPredictor
from samjax.model import abstract_params

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def encoded(hq_pair):
    photo = random_photo(90, 60)
    predictor, sam = hq_pair(SMALL.with_hq())
    predictor.set_image(photo)
    return predictor, sam, sam.encode(photo)


def assert_same_hq_answer(sam, embedding, predictor, case, *, multimask, token_only):
    size = tuple(embedding.original_size.tolist())
    arguments = case.arguments(size, sam.config.mask_size)
    masks, iou, logits = predictor.predict(**arguments, multimask_output=multimask, hq_token_only=token_only)
    hq = "only" if token_only else "sum"
    ours = sam.predict(embedding, prompts_of(arguments), multimask=multimask, hq=hq)
    assert relative_error(ours.logits[0], logits) <= LOGITS_BAR
    assert relative_error(ours.iou[0], iou) <= IOU_BAR
    assert float((sam.masks(ours, embedding)[0] == masks).mean()) >= MASK_BAR


@pytest.mark.parametrize("token_only", [False, True], ids=["sum", "token alone"])
@pytest.mark.parametrize("multimask", [True, False], ids=["best of three", "one"])
@pytest.mark.parametrize("case", CASES)
def test_answers(encoded, case, multimask, token_only):
    predictor, sam, embedding = encoded
    assert embedding_error(embedding, predictor) <= EMBEDDING_BAR
    assert_same_hq_answer(sam, embedding, predictor, CASES[case], multimask=multimask, token_only=token_only)


def test_the_drop_in_predictor_takes_the_authors_arguments(encoded):
    predictor, sam, embedding = encoded
    ours = SamPredictor(sam)
    ours.set_embedding(embedding)
    point = {"point_coords": np.array([[30.0, 40.0]]), "point_labels": np.array([1])}
    for token_only in (False, True):
        theirs = predictor.predict(**point, hq_token_only=token_only)
        for mine, other in zip(ours.predict(**point, hq_token_only=token_only), theirs, strict=True):
            assert mine.shape == other.shape
            assert (mine == other).mean() >= MASK_BAR if mine.dtype == bool else relative_error(mine, other) <= 1e-4


@pytest.mark.parametrize("options", [{"crop_n_layers": 1}], ids=str)
def test_everything_in_a_photo(hq_pair, options):
    from parity.hq_reference import import_segment_anything_hq
    from parity.reference import load_params

    predictor, sam = hq_pair(SHAPES.with_hq())
    # SAM's own part has learnt to find shapes; the token's, which is added, is random and faint.
    trained = shapes_sam().params
    decoder = sam.params["mask_decoder"]
    faint = jax.tree.map(lambda leaf: 0.3 * leaf, decoder["hf_mlp"]["layers"]["2"])
    mlp = {"layers": {**decoder["hf_mlp"]["layers"], "2": faint}}
    params = {**trained, "mask_decoder": {**decoder, **trained["mask_decoder"], "hf_mlp": mlp}}
    sam = dataclasses.replace(sam, params=params)
    load_params(predictor.model, params)
    photo, _ = shapes_photo(260, 390, seed=7, count=30)
    options = {"points_per_side": 10, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.6, **options}
    theirs = import_segment_anything_hq().SamAutomaticMaskGenerator(predictor.model, **options).generate(photo)
    assert len(theirs) > 5
    assert_same(SamAutomaticMaskGenerator(sam, **options).generate(photo), theirs)


def test_the_authors_file_is_read_and_written(encoded, tmp_path):
    import torch

    predictor, sam, _ = encoded
    torch.save(predictor.model.state_dict(), tmp_path / "sam_hq.pth")
    read = samjax.load(tmp_path / "sam_hq.pth")
    assert read.config == sam.config
    jax.tree.map(np.testing.assert_array_equal, read.params, sam.params)
    samjax.convert.convert(tmp_path / "sam_hq.pth", tmp_path / "again.pth")
    predictor.model.load_state_dict(torch.load(tmp_path / "again.pth"), strict=True)


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_names_shapes_and_numbers_of_the_published_models(hq_pair, variant):
    """At full size, without the memory: shapes only on both sides."""
    import torch
    from parity.hq_reference import import_segment_anything_hq

    with torch.device("meta"):
        reference = import_segment_anything_hq().sam_model_registry[variant]()
    state = reference.state_dict()
    theirs = {
        "/".join(path): tuple(state[name].shape[axis] for axis in axes) if axes else tuple(state[name].shape)
        for name, (path, axes) in layout(reference).items()
    }
    ours = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(VARIANTS[variant].with_hq()))
    }
    assert ours == theirs
    # What its authors train is what requires a gradient in their model.
    learnt = sum(parameter.numel() for parameter in reference.parameters() if parameter.requires_grad)
    assert learnt == {"vit_b": 1_071_104, "vit_l": 1_333_248, "vit_h": 1_595_392}[variant]


@pytest.mark.heavy
@pytest.mark.parametrize("token_only", [False, True], ids=["sum", "token alone"])
def test_vit_b(hq_pair, photos, token_only):
    predictor, sam = hq_pair(VARIANTS["vit_b"].with_hq())
    predictor.set_image(photos["truck"])
    embedding = sam.encode(photos["truck"])
    assert embedding_error(embedding, predictor) <= EMBEDDING_BAR
    for case in ("one point", "a box and four points", "all together"):
        assert_same_hq_answer(sam, embedding, predictor, CASES[case], multimask=True, token_only=token_only)
