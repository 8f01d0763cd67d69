import dataclasses
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_photo, random_sam

from samjax import VARIANTS, Embedding, Execution, Prompts, Sam, decode, encode, mask_prompt, read_image
from samjax.model import abstract_params, jitted_decode
from samjax.ops.attention import Blocked, Plain


def relative_error(ours, reference) -> float:
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    return float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))


def random_prompt(random: np.random.Generator, size: tuple[int, int], masks: bool) -> dict:
    """Arguments of `Prompts.of` for one prompt: 1 to 16 points, a box, a mask, or any of them together."""
    height, width = size
    kinds = random.permutation(["points", "box", "mask"] if masks else ["points", "box"])
    kinds = set(kinds[: random.integers(1, len(kinds) + 1)])
    low, high = np.sort(random.uniform(0, 1, (2, 2)), 0) * (width, height)
    count = random.integers(1, 17)
    return {
        "points": random.uniform(0, 1, (count, 2)) * (width, height) if "points" in kinds else None,
        "labels": random.integers(0, 2, count) if "points" in kinds else None,
        "boxes": (*low, *high) if "box" in kinds else None,
        "masks": random.normal(0, 5, SMALL.mask_size) if "mask" in kinds else None,
    }


def prompts_of(rows: list[dict]) -> Prompts:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Prompts.of(**{name: column for name, column in columns.items() if any(x is not None for x in column)})


def with_nan_in_empty_places(prompts: Prompts) -> Prompts:
    """The same prompts with NaN in whatever must not be looked at."""
    points = np.where((prompts.labels >= 0)[..., None], prompts.points, np.nan)
    masks = prompts.masks
    if masks is not None:
        masks = np.where(prompts.has_mask[..., None, None], masks, np.nan)
    return dataclasses.replace(prompts, points=points.astype(np.float32), masks=masks)


# The answer for a prompt is the same alone and in any company


@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_has_the_same_answer_alone_and_in_a_ragged_batch(sam, seed):
    random = np.random.default_rng(seed)
    sizes = [tuple(random.integers(20, 120, 2)) for _ in range(3)]
    embeddings = sam.encode_batch([random_photo(*size, seed=seed) for size in sizes])
    rows = [[random_prompt(random, size, masks=seed % 2 == 0) for _ in range(random.integers(1, 6))] for size in sizes]
    batch = sam.predict_batch(
        embeddings, with_nan_in_empty_places(Prompts.batch([prompts_of(image) for image in rows]))
    )
    for number, image in enumerate(rows):
        together = batch[number]
        assert len(together.logits) == len(image)
        for position, row in enumerate(image):
            alone = sam.predict(embeddings[number], prompts_of([row]))
            # float32 sums over another number of (masked) terms
            assert relative_error(together.logits[position], alone.logits[0]) <= 1e-5
            assert relative_error(together.iou[position], alone.iou[0]) <= 1e-5


@pytest.mark.parametrize("size", [3, 6, 10, 34])
def test_the_number_of_empty_slots_changes_nothing(sam, embedding, size):
    exact = Prompts(
        np.array([[[20, 30], [70, 40], [0, 0]]], np.float32), np.array([[1, 0, -1]], np.int32), np.ones(1, bool)
    )
    extra = size - 3
    padded = Prompts(
        np.pad(exact.points, ((0, 0), (0, extra), (0, 0)), constant_values=np.nan),
        np.pad(exact.labels, ((0, 0), (0, extra)), constant_values=-2),
        exact.valid,
    )
    ours, expected = sam.predict(embedding, padded), sam.predict(embedding, exact)
    assert relative_error(ours.logits, expected.logits) <= 1e-5
    assert relative_error(ours.iou, expected.iou) <= 1e-5


def test_the_padding_point_is_attended(sam, embedding):
    """It changes the reference's answers, so it must not be taken for an empty slot."""
    prompts = Prompts.of([[[20, 30]]])
    without = dataclasses.replace(prompts, labels=np.where(prompts.labels == -1, -2, prompts.labels))
    assert relative_error(sam.predict(embedding, without).logits, sam.predict(embedding, prompts).logits) > 1e-3


def test_all_masks_count_where_nothing_says_which(sam, embedding):
    masks = np.random.default_rng(0).normal(0, 5, (2, *SMALL.mask_size))
    prompts = Prompts.of([[[20, 30]], [[70, 40]]], masks=masks)
    silent = dataclasses.replace(prompts, has_mask=None)
    np.testing.assert_allclose(
        sam.predict(embedding, silent).logits, sam.predict(embedding, prompts).logits, rtol=1e-5, atol=1e-5
    )
    assert Prompts.batch([silent]).has_mask.tolist() == [[True, True]]


def test_the_padding_points_coordinates_do_not_matter(sam, embedding):
    prompts = Prompts.of([[[20, 30]]])
    moved = dataclasses.replace(prompts, points=np.where((prompts.labels == -1)[..., None], 55, prompts.points))
    np.testing.assert_array_equal(sam.predict(embedding, moved).logits, sam.predict(embedding, prompts).logits)


def test_the_order_of_prompts_does_not_matter(sam, embedding):
    rows = [[[20, 30]], [[70, 40], [5, 5]], [[50, 50]]]
    forth, back = sam.predict(embedding, Prompts.of(rows)), sam.predict(embedding, Prompts.of(rows[::-1]))
    np.testing.assert_array_equal(forth.logits, back.logits[::-1])


def test_one_image_has_the_same_embedding_alone_and_in_a_batch(sam):
    images = [random_photo(60, 90), random_photo(50, 20, seed=1), random_photo(7, 5, seed=2)]
    batch = sam.encode_batch(images)
    for number, image in enumerate(images):
        alone = sam.encode(image)
        assert relative_error(batch.features[number], alone.features) <= 1e-5
        assert batch[number].original_size.tolist() == list(image.shape[:2]) == alone.original_size.tolist()
        assert batch[number].input_size.tolist() == alone.input_size.tolist()


# How it is computed changes nothing


@pytest.mark.parametrize(
    "execution",
    [
        Execution(attention=Plain()),
        Execution(attention=Blocked(rows=2)),
        Execution(attention=Blocked(rows=3, heads_together=True)),
        Execution(window_attention=Plain(windows_together=1), images_per_step=1, prompts_per_step=1),
        Execution(window_attention=Plain(windows_together=4), images_per_step=2, prompts_per_step=2),
        Execution(tokens_per_step=16),
    ],
    ids=[
        "plain attention",
        "blocks",
        "blocks of all heads",
        "one at a time",
        "some at a time",
        "some tokens at a time",
    ],
)
def test_execution_changes_no_answer(sam, execution):
    photos = [random_photo(60, 90, seed=seed) for seed in range(3)]
    prompts = Prompts.batch([Prompts.of([[[20, 30]], [[40, 50]], [[60, 10]]])] * 3)
    answers = []
    for model in (sam, dataclasses.replace(sam, execution=execution)):
        embeddings = model.encode_batch(photos)
        answers.append((embeddings.features, model.predict_batch(embeddings, prompts).logits))
    (features, logits), (expected_features, expected_logits) = answers
    # the bound on the encoder's parity; these are sums in another order
    assert relative_error(features, expected_features) <= 1e-5
    assert relative_error(logits, expected_logits) <= 1e-5


# Half precision


@pytest.fixture(scope="module")
def half(sam):
    return sam.with_dtype("bfloat16")


def test_half_precision_shares_the_float32_parameters(sam, half):
    assert half.params is sam.params


def test_half_precision_embeds_in_bfloat16_and_answers_in_float32(half, embedding):
    features = half.encode(random_photo(60, 90)).features
    assert features.dtype == jnp.bfloat16
    prediction = half.predict(embedding, Prompts.of([[[20, 30]]]))
    assert prediction.logits.dtype == prediction.iou.dtype == jnp.float32


def test_half_precision_keeps_positions_in_float32(half):
    """A bfloat16 coordinate of 1000 is up to 4 pixels off, so the tokens of neighbouring pixels would be the same."""
    from samjax.nn.prompt_encoder import PromptEncoder

    params = {"params": half.params["prompt_encoder"]}
    labels = jnp.zeros(2, jnp.int32)
    points = jnp.array([[50.0, 20.0], [50.01, 20.0]])
    single, double = (
        PromptEncoder(SMALL, jnp.dtype(dtype)).apply(params, points, labels, method="tokens")
        for dtype in ("float32", "bfloat16")
    )
    np.testing.assert_array_equal(single, double)
    assert (double[0] != double[1]).any()
    grid = PromptEncoder(SMALL, jnp.dtype("bfloat16")).apply(params, method="grid_positions")
    assert grid.dtype == jnp.float32


def test_half_precision_agrees_on_the_masks(root):
    """At least 99 % of a photo's pixels. The photo is the one in the package, the model the smallest variant."""
    photo = read_image(root / "samjax/assets/astronaut.jpg")
    height, width = photo.shape[:2]
    prompts = Prompts.of(boxes=[[0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]])
    masks = []
    for dtype in ("float32", "bfloat16"):
        model = random_sam(VARIANTS["vit_tiny"]).with_dtype(dtype)
        embedding = model.encode(photo)
        masks.append(model.masks(model.predict(embedding, prompts), embedding))
    assert 0.01 < masks[0].mean() < 0.99  # an empty or full mask would agree with anything
    assert (masks[0] == masks[1]).mean() >= 0.99


# Other sizes


def test_any_grid_works():
    model = random_sam().with_image_size((40, 88))
    embedding = model.encode(random_photo(60, 90))
    assert embedding.features.shape == (5, 11, SMALL.width)
    prediction = model.predict(embedding, Prompts.of([[[20, 30]]], masks=[mask_prompt(np.eye(60, 90), model.config)]))
    assert prediction.logits.shape == (1, 3, 20, 44)
    assert model.masks(prediction, embedding).shape == (1, 3, 60, 90)
    assert jnp.isfinite(prediction.logits).all()


@pytest.mark.parametrize("image_size", [(40, 88), (128, 64), 32])
def test_parameters_of_another_size_have_its_shapes(sam, image_size):
    resized = sam.with_image_size(image_size)
    shapes = jax.tree.map(jnp.shape, resized.params)
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, abstract_params(resized.config))


def test_the_same_size_leaves_the_parameters_alone(sam):
    jax.tree.map(np.testing.assert_array_equal, sam.with_image_size(SMALL.image_size).params, sam.params)


def test_only_position_tables_depend_on_the_size(sam):
    resized = sam.with_image_size((40, 88))
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(sam.params), jax.tree.leaves(resized.params), strict=True
        )
        if new is not old and (new.shape != old.shape or (new != old).any())
    }
    assert changed == {
        "image_encoder/pos_embed",
        "image_encoder/blocks/0/attn/rel_pos_h",
        "image_encoder/blocks/0/attn/rel_pos_w",
    }


# As a part of JAX programs


def test_a_model_is_a_pytree_of_its_parameters(sam):
    leaves, tree = jax.tree.flatten(sam)
    assert len(leaves) == len(jax.tree.leaves(sam.params))
    again = jax.tree.unflatten(tree, leaves)
    assert again.config == sam.config
    assert again.execution == sam.execution


def test_every_parameter_has_a_finite_gradient(sam):
    """Also beside padding: a masked softmax or a NaN in an empty slot must not poison the backward pass."""
    pixels = jnp.asarray(np.random.default_rng(0).standard_normal((*SMALL.image_size, 3)), jnp.float32)
    prompts = with_nan_in_empty_places(
        Prompts.of(
            [[[20, 30], [50, 50]], None],
            [[1, 0], None],
            boxes=[None, [5, 5, 40, 50]],
            masks=[None, np.ones(SMALL.mask_size)],
        )
    )

    execution = Execution(attention=Plain())  # without loops, which take long to compile backwards

    @jax.jit
    @jax.grad
    def gradient(params):
        features = encode(SMALL, params, pixels, execution).image
        size = jnp.array(SMALL.image_size, jnp.int32)
        prediction = decode(SMALL, params, Embedding(features, size, size), prompts, execution, multimask=True)
        return jnp.square(prediction.logits).mean() + jnp.square(prediction.iou).mean()

    gradients = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(gradient(sam.params)))
    }
    assert not [name for name, leaf in gradients.items() if not np.isfinite(leaf).all()]
    unused = {name for name, leaf in gradients.items() if not leaf.any()}
    single_mask_head = {name for name in gradients if "output_hypernetworks_mlps/0/" in name}
    untrained = {"prompt_encoder/pe_layer/positional_encoding_gaussian_matrix"}
    # A bias of the keys shifts all logits of a query alike, which softmax does not see: its gradient is rounding, or 0
    # where few tokens let the decoder leave it out.
    key_biases = {
        f"mask_decoder/transformer/{name}_token_to_image/k_proj/bias" for name in ("layers/1/cross_attn", "final_attn")
    }
    assert unused | key_biases == single_mask_head | untrained | key_biases


def test_50_predictions_compile_the_decoder_at_most_5_times(caplog):
    """1 to 16 points, on photos of 3 sizes."""
    model = random_sam()
    embeddings = [model.encode(random_photo(*size)) for size in ((60, 90), (90, 60), (33, 33))]
    random = np.random.default_rng(0)
    jitted_decode.clear_cache()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for number in range(50):
            points = random.uniform(0, 33, (1, 1 + number % 16, 2))
            model.predict(embeddings[number % 3], Prompts.of(points))
    compiled = [r for r in caplog.messages if re.search(r"Finished XLA compilation of jit\(decode\)", r)]
    assert 1 <= len(compiled) <= 5


# One mask or three


def test_multimask_gives_three_masks_and_otherwise_one(sam, embedding):
    prompts = Prompts.of([[[20, 30]], [[50, 50]]])
    three, one = (sam.predict(embedding, prompts, multimask=flag) for flag in (True, False))
    assert three.logits.shape == (2, 3, *SMALL.mask_size)
    assert three.iou.shape == (2, 3)
    assert one.logits.shape == (2, 1, *SMALL.mask_size)
    assert one.iou.shape == (2, 1)
    assert all(relative_error(one.logits[:, 0], three.logits[:, i]) > 0.1 for i in range(3))


def test_masks_have_the_photos_size(sam, embedding):
    masks = sam.masks(sam.predict(embedding, Prompts.of([[[20, 30]], [[50, 50]]])), embedding)
    assert masks.shape == (2, 3, 60, 90)
    assert masks.dtype == bool


# What is refused, and what is only warned about


def test_an_unknown_variant_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown variant 'vit_x'; known are vit_b, vit_l, vit_h, vit_tiny"):
        Sam.init("vit_x")


def test_a_mask_prompt_of_another_size_is_refused(sam, embedding):
    with pytest.raises(ValueError, match=r"must be logits of size \(32, 32\), got \(60, 90\); samjax.mask_prompt"):
        sam.predict(embedding, Prompts.of(masks=[np.zeros((60, 90))]))


def test_as_many_images_as_prompt_sets_are_wanted(sam):
    embeddings = sam.encode_batch([random_photo(60, 90)] * 2)
    with pytest.raises(ValueError, match="2 embeddings came with prompts of 1 images"):
        sam.predict_batch(embeddings, Prompts.batch([Prompts.of([[[1, 2]]])]))


@pytest.mark.parametrize("point", [(-1, 5), (5, -1), (91, 5), (5, 61)])
def test_a_point_outside_the_image_is_taken_with_a_warning(sam, embedding, point):
    with pytest.warns(UserWarning, match=r"1 point\(s\) or box corner\(s\) lie outside the image"):
        prediction = sam.predict(embedding, Prompts.of([[point]]))
    assert jnp.isfinite(prediction.logits).all()


def test_a_box_that_reaches_outside_is_taken_with_a_warning(sam, embedding):
    with pytest.warns(UserWarning, match="outside the image"):
        sam.predict(embedding, Prompts.of(boxes=[[-5, -5, 40, 50]]))


def test_the_whole_image_is_a_box_without_a_warning(sam, embedding):
    sam.predict(embedding, Prompts.of(boxes=[[0, 0, 90, 60]]))


def test_an_image_of_nan_is_refused(sam):
    with pytest.raises(ValueError, match="NaN"):
        sam.encode(np.full((5, 5, 3), np.nan))


# Fresh models


def test_a_fresh_model_works_and_depends_on_its_key():
    first, second = (Sam.init(SMALL, jax.random.key(seed)) for seed in (0, 1))
    photo, prompts = random_photo(60, 90), Prompts.of([[[20, 30]]])
    logits = [model.predict(model.encode(photo), prompts).logits for model in (first, second)]
    assert jnp.isfinite(logits[0]).all()
    assert relative_error(logits[0], logits[1]) > 0.1
