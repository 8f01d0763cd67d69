"""The seams of the pure functions: taps of the encoder, tokens from anywhere, and what they cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_photo

from samjax import Prompts, transforms
from samjax.model import (
    decode,
    decode_tokens,
    embed_masks,
    embed_prompts,
    encode,
    encode_from,
    jitted_encode,
    tap_names,
)
from samjax.types import Features, Tokens


def pixels(seed=0):
    return jnp.asarray(transforms.to_pixels(random_photo(60, 90, seed), SMALL))


def masks(count, seed=0):
    logits = np.random.default_rng(seed).standard_normal((count, *SMALL.mask_size))
    return [None, *logits.astype(np.float32)][:count]


@pytest.fixture(scope="module")
def prompts():
    """Points, a box, and many points; of different numbers of tokens."""
    return Prompts.of(points=[[[10, 20]], None, [[5, 5], [80, 50], [40, 30]]], boxes=[None, [8, 3, 60, 50], None])


@pytest.fixture(scope="module")
def with_masks():
    return Prompts.of(points=[[[10, 20]], [[50, 40]], [[5, 5]]], masks=masks(3))


# Taps


def test_taps_are_the_outputs_of_blocks_and_change_nothing(sam):
    names = tap_names(SMALL)
    assert names == tuple(f"blocks/{i}" for i in range(SMALL.image_encoder.depth))
    plain = encode(SMALL, sam.params, pixels(), sam.execution)
    tapped = encode(SMALL, sam.params, pixels(), sam.execution, taps=names)
    assert plain.taps == {}
    assert list(tapped.taps) == list(names)
    np.testing.assert_array_equal(tapped.image, plain.image)
    for tap in tapped.taps.values():
        assert tap.shape == (*SMALL.grid, SMALL.image_encoder.width)

    # The neck makes the features from the last block's output.
    from samjax.nn.encoders.vit import ViT

    def neck(module, x):
        for i in range(4):
            x = module.neck[i](x)
        return x

    module = ViT(SMALL.image_encoder, SMALL.width, sam.execution)
    features = module.apply({"params": sam.params["image_encoder"]}, tapped.taps[names[-1]], method=neck)
    np.testing.assert_allclose(features, plain.image, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(tapped.taps[names[0]], tapped.taps[names[-1]])


@pytest.mark.parametrize("after", ["blocks/0", "blocks/1"])
def test_the_rest_of_the_encoder_goes_on_from_a_tap(sam, after):
    later = tuple(name for name in tap_names(SMALL) if name > after)
    whole = encode(SMALL, sam.params, pixels(), sam.execution, taps=(after, *later))
    rest = encode_from(SMALL, sam.params, whole.taps[after], sam.execution, after=after, taps=later)
    assert np.array_equal(rest.image, whole.image)
    assert list(rest.taps) == list(later)
    assert all(np.array_equal(rest.taps[name], whole.taps[name]) for name in later)
    batch = encode_from(SMALL, sam.params, np.stack([whole.taps[after]] * 2), sam.execution, after=after)
    np.testing.assert_allclose(batch.image[1], whole.image, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no tap blocks/9; it has"):
        encode_from(SMALL, sam.params, whole.taps[after], sam.execution, after="blocks/9")
    with pytest.raises(ValueError, match=f"no tap {after}"):
        encode_from(SMALL, sam.params, whole.taps[after], sam.execution, after=after, taps=(after,))


def test_taps_of_a_batch_are_those_of_its_images(sam):
    photos = [random_photo(60, 90, seed) for seed in range(3)]
    batch = sam.encode_batch(photos, taps=("blocks/1",))
    for index, photo in enumerate(photos):
        alone = sam.encode(photo, taps=("blocks/1",))
        np.testing.assert_allclose(batch[index].taps["blocks/1"], alone.taps["blocks/1"], rtol=1e-5, atol=1e-5)


def test_taps_that_are_not_asked_for_cost_nothing(sam):
    """Not asking is the program without taps; asking for one adds its output and no operation."""

    def lowered(**taps):
        return jitted_encode.lower(SMALL, sam.params, pixels(), sam.execution, **taps)

    assert lowered(taps=()).as_text() == lowered().as_text()
    plain, one = lowered().compile(), lowered(taps=("blocks/0",)).compile()
    assert one.cost_analysis()["flops"] == pytest.approx(plain.cost_analysis()["flops"], rel=1e-3)
    size = plain.memory_analysis().output_size_in_bytes
    tap = 4 * np.prod((*SMALL.grid, SMALL.image_encoder.width))
    assert one.memory_analysis().output_size_in_bytes - size == pytest.approx(tap, abs=64)


def test_a_tap_that_there_is_not_is_refused(sam):
    with pytest.raises(ValueError, match=r"no tap blocks/99; it has: blocks/0, blocks/1"):
        encode(SMALL, sam.params, pixels(), sam.execution, taps=("blocks/0", "blocks/99"))
    with pytest.raises(ValueError, match="a tuple of names, got the text 'blocks/0'"):
        sam.encode(random_photo(60, 90), taps="blocks/0")
    assert list(sam.encode(random_photo(60, 90), taps=["blocks/0"]).taps) == ["blocks/0"]


def test_an_embedding_with_taps_needs_no_other_program(sam, prompts):
    from example_compiling import compiled_programs

    photo = random_photo(60, 90)
    sam.predict(sam.encode(photo), prompts)
    tapped = sam.encode(photo, taps=("blocks/0",))
    assert compiled_programs(lambda: sam.predict(tapped, prompts)) == []


# Tokens


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["prompts", "with_masks"])
def test_decode_is_the_composition_of_its_parts(sam, embedding, request, kind, multimask):
    given = request.getfixturevalue(kind)
    given = jax.tree.map(jnp.asarray, given)
    tokens = embed_prompts(SMALL, sam.params, embedding, given, sam.execution)
    dense = embed_masks(SMALL, sam.params, given, sam.execution)
    assert (dense is None) == (kind == "prompts")
    np.testing.assert_array_equal(tokens.valid, given.labels != -2)
    features = Features(embedding.features)
    more = {"multimask": multimask}
    more["valid"] = given.valid
    parts = decode_tokens(SMALL, sam.params, features, tokens, sam.execution, dense=dense, **more)
    whole = decode(SMALL, sam.params, embedding, given, sam.execution, multimask=multimask)
    np.testing.assert_allclose(parts.logits, whole.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(parts.iou, whole.iou, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(parts.valid, whole.valid)


def test_a_batch_of_tokens_is_decoded_as_its_images_are(sam, embedding, with_masks):
    both = jax.tree.map(lambda x: jnp.stack([x, x]), embedding)
    given = Prompts.batch([with_masks, with_masks])
    tokens = embed_prompts(SMALL, sam.params, both, given, sam.execution)
    dense = embed_masks(SMALL, sam.params, given, sam.execution)
    features = Features(both.features)
    found = decode_tokens(SMALL, sam.params, features, tokens, sam.execution, dense=dense, multimask=True)
    expected = decode(SMALL, sam.params, both, given, sam.execution, multimask=True)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_tokens_that_are_not_valid_have_no_influence(sam, embedding, prompts):
    """Whatever they hold; validity is a mask and not a label."""
    features = Features(embedding.features)
    ask = functools.partial(decode_tokens, SMALL, sam.params, features, execution=sam.execution, multimask=True)
    tokens = embed_prompts(SMALL, sam.params, embedding, prompts, sam.execution)
    count = len(tokens.values)
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((count, 4, SMALL.width)), jnp.float32)
    alone = ask(tokens=tokens)
    for values, valid, same in ((noise, False, True), (noise, True, False)):
        joined = tokens.joined(Tokens(values, jnp.full((count, 4), valid)))
        found = ask(tokens=joined)
        assert np.allclose(found.logits, alone.logits, rtol=1e-4, atol=1e-4) == same


def test_tokens_that_do_not_fit_are_refused(sam, embedding):
    ask = functools.partial(decode_tokens, SMALL, sam.params, execution=sam.execution, multimask=True)
    features = Features(embedding.features)
    for shape in ((1, 2, SMALL.width - 1), (2, 1, 2, SMALL.width)):
        tokens = Tokens(jnp.zeros(shape), jnp.ones(shape[:-1], bool))
        with pytest.raises(ValueError, match=r"must have shape \(prompts, tokens, 64\), got \("):
            ask(features=features, tokens=tokens)
    tokens = Tokens(jnp.zeros((1, 2, SMALL.width)), jnp.ones((1, 2), bool))
    with pytest.raises(ValueError, match=r"of \(1,\) prompts, dense maps of \(2,\)"):
        ask(features=features, tokens=tokens, dense=jnp.zeros((2, *SMALL.grid, SMALL.width)))


def test_tokens_of_other_prompts_are_not_joined():
    three, four = (Tokens(jnp.zeros((count, 2, 8)), jnp.ones((count, 2), bool)) for count in (3, 4))
    with pytest.raises(ValueError, match=r"\(4, 2, 8\) are not for the prompts of these, \(3, 2, 8\)"):
        three.joined(four)


def test_learned_tokens_are_decoded_and_have_a_gradient(sam, embedding):
    """A user's own vectors in place of points, as prompt tuning has them."""
    features = Features(embedding.features)
    mine = jnp.asarray(np.random.default_rng(1).standard_normal((1, 2, SMALL.width)), jnp.float32)

    def loss(values):
        tokens = Tokens(values, jnp.ones(values.shape[:2], bool))
        found = decode_tokens(SMALL, sam.params, features, tokens, sam.execution, multimask=False)
        return jnp.square(found.logits - 1).mean()

    before, gradient = jax.value_and_grad(loss)(mine)
    assert float(jnp.linalg.norm(gradient)) > 0
    assert loss(mine - 0.1 * gradient / jnp.linalg.norm(gradient)) < before
