"""HQ-SAM's token: beside SAM's own masks, which it leaves alone. tests/parity/test_hq.py compares with its authors'."""

import dataclasses

import jax
import numpy as np
import pytest
from example_models import SMALL, random_photo, random_sam

from samjax import VARIANTS, Prompts, SamAutomaticMaskGenerator, SamConfig, SamPredictor
from samjax.config import DecoderConfig, ViTConfig
from samjax.embeddings import EmbeddingStore
from samjax.model import abstract_params, decode_tokens, embed_prompts, encode
from samjax.types import Features

POINTS = Prompts.of(points=[[(20, 30)], [(40, 8), (3, 50)]])


@pytest.fixture(scope="module")
def hq():
    return random_sam(SMALL.with_hq())


@pytest.fixture(scope="module")
def embedding(hq):
    return hq.encode(random_photo(50, 64))


def test_the_embedding_has_the_output_of_the_first_global_block(hq, embedding):
    asked = hq.without_hq().encode(random_photo(50, 64), taps=["blocks/0"])
    assert list(embedding.taps) == ["blocks/0"]
    np.testing.assert_array_equal(embedding.taps["blocks/0"], asked.taps["blocks/0"])
    np.testing.assert_array_equal(embedding.features, asked.features)


@pytest.mark.parametrize("multimask", [True, False])
def test_sams_own_masks_are_those_of_sam_to_the_bit(hq, embedding, multimask):
    own = hq.predict(embedding, POINTS, multimask=multimask, hq="off")
    sam = hq.without_hq()
    alone = sam.predict(sam.encode(random_photo(50, 64)), POINTS, multimask=multimask)
    assert sam.config == SMALL
    assert own.logits.shape[1] == (3 if multimask else 1)
    jax.tree.map(np.testing.assert_array_equal, own, alone)


def test_the_sum_is_the_tokens_mask_and_sams_most_confident_one(hq, embedding):
    """By the token's side: with its last layer at zero, only SAM's masks are left, which the token has attended to."""
    mlp = hq.params["mask_decoder"]["hf_mlp"]
    nothing = {**mlp["layers"], "2": jax.tree.map(np.zeros_like, mlp["layers"]["2"])}
    decoder = {**hq.params["mask_decoder"], "hf_mlp": {"layers": nothing}}
    without = dataclasses.replace(hq, params={**hq.params, "mask_decoder": decoder})
    for multimask in (True, False):
        summed = hq.predict(embedding, POINTS, multimask=multimask)
        only = hq.predict(embedding, POINTS, multimask=multimask, hq="only")
        best = without.predict(embedding, POINTS, multimask=multimask)
        assert summed.logits.shape[:2] == (2, 1)
        np.testing.assert_allclose(summed.logits, only.logits + best.logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(summed.iou, only.iou)
    assert abs(only.logits).max() > 0.1


def test_a_batch_is_answered_as_its_images_are(hq, embedding):
    photos = random_photo(50, 64), random_photo(64, 40, seed=1)
    together = hq.predict_batch(hq.encode_batch(photos), Prompts.batch([POINTS, POINTS]), hq="only")
    alone = hq.predict(embedding, POINTS, hq="only")
    np.testing.assert_allclose(together[0].logits, alone.logits, rtol=1e-4, atol=1e-4)


def test_decode_tokens_takes_the_tap_from_the_features(hq, embedding):
    tokens = embed_prompts(hq.config, hq.params, embedding, POINTS, hq.execution)
    features = Features(embedding.features, embedding.taps)
    found = decode_tokens(hq.config, hq.params, features, tokens, hq.execution, multimask=True)
    np.testing.assert_allclose(found.logits[:2], hq.predict(embedding, POINTS).logits, rtol=1e-4, atol=1e-4)


def test_an_embedding_without_the_tap_is_refused(hq, embedding):
    bare = dataclasses.replace(embedding, taps={})
    with pytest.raises(ValueError, match="the embedding lacks 'blocks/0', which HQ-SAM's token needs"):
        hq.predict(bare, POINTS)
    assert hq.predict(bare, POINTS, hq="off").iou.shape == (2, 3)


def test_sam_without_a_token_has_no_such_masks(hq, embedding):
    sam = hq.without_hq()
    for wanted in ("sum", "only"):
        with pytest.raises(ValueError, match="no token of HQ-SAM: leave hq out"):
            sam.predict(embedding, POINTS, hq=wanted)
    assert sam.without_hq() is sam


def test_stored_embeddings_have_the_tap(hq, embedding, tmp_path):
    store, photo = EmbeddingStore(tmp_path, hq), random_photo(50, 64)
    store.put(photo, embedding)
    jax.tree.map(np.testing.assert_array_equal, store.get(photo), embedding)


def test_the_predictor_and_everything_in_a_photo_answer_with_the_sum(hq, embedding):
    predictor = SamPredictor(hq)
    predictor.set_image(random_photo(50, 64))
    _, iou, logits = predictor.predict(np.array([[20, 30]]), np.array([1]))
    expected = hq.predict(embedding, Prompts.of(points=[[(20, 30)]]))
    np.testing.assert_array_equal(logits, expected.logits[0])
    anything = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    grid = [np.array([[20.5 / 64, 30.5 / 50]])]
    generator = SamAutomaticMaskGenerator(hq, points_per_side=None, point_grids=grid, **anything)
    found = generator.generate(random_photo(50, 64))
    assert len(found) == 1
    np.testing.assert_allclose(found[0]["predicted_iou"], iou[0], atol=0.1)


def test_half_precision_answers_in_float32(hq):
    half = hq.with_dtype("bfloat16")
    embedding = half.encode(random_photo(50, 64))
    assert {leaf.dtype.name for leaf in (embedding.features, *embedding.taps.values())} == {"bfloat16"}
    assert half.predict(embedding, POINTS).logits.dtype == np.float32


@pytest.mark.heavy
def test_every_parameter_of_the_token_has_a_gradient(hq, embedding):
    def loss(params):
        tokens = embed_prompts(hq.config, params, embedding, POINTS, hq.execution)
        features = Features(embedding.features, embedding.taps)
        answer = decode_tokens(hq.config, params, features, tokens, hq.execution, multimask=False, hq="only")
        return (answer.logits**2).mean()

    gradient = jax.jit(jax.grad(loss))(hq.params)["mask_decoder"]
    for name in set(gradient) - set(abstract_params(SMALL)["mask_decoder"]):
        for leaf in jax.tree.leaves(gradient[name]):
            assert np.isfinite(leaf).all()
            assert abs(leaf).max() > 0


def test_the_token_needs_a_global_block():
    with pytest.raises(ValueError, match="takes the output of the first global block of a plain ViT"):
        SamConfig(ViTConfig(global_blocks=()), DecoderConfig(hq=True))


@pytest.mark.parametrize(("variant", "own"), [("vit_b", 1_071_104), ("vit_l", 1_333_248), ("vit_h", 1_595_392)])
def test_the_token_and_its_fusion_have_as_many_numbers_as_its_authors(variant, own):
    def size(config):
        return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))

    config = VARIANTS[variant]
    assert size(config.with_hq()) - size(config) == own
    assert config.with_hq().variant == variant


def test_a_window_of_the_input_is_encoded_with_its_tap(hq):
    from samjax.types import Perturbation

    pixels = jax.random.normal(jax.random.key(0), (24, 48, 3))
    change = Perturbation(None, jax.numpy.array([24, 0], jax.numpy.int32))
    features = encode(hq.config, hq.params, pixels, hq.execution, perturbation=change)
    assert features.taps["blocks/0"].shape == (3, 6, 48)
