"""The average of a base and a tuned model (WiSE-FT) against its formula in float64."""

import dataclasses
import weakref

import ml_dtypes
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import convert
from samjax.checkpoint import CheckpointError, LazyArray, lazy
from samjax.config import MaskThresholds
from samjax.tuned import Base, Tuned

FORMATS = {"meta": "sam.safetensors", "huggingface": "folder", "native": "native"}
SUITED = MaskThresholds(0.5, 0.6, 0.7)


def flat(params):
    return flatten_dict(params, sep="/")


@pytest.fixture(scope="module")
def base():
    return random_params(SMALL, 1)


@pytest.fixture(scope="module")
def tuned(base):
    """The decoder has moved; the rest is that of the base."""
    return {**base, "mask_decoder": random_params(SMALL, 2)["mask_decoder"]}


@pytest.fixture(scope="module")
def written(base, tuned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merging")
    convert.write(folder / "base.safetensors", SMALL, base, thresholds=SUITED)
    convert.write(folder / "tuned", SMALL, tuned, provenance={"run": "mine"})
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_each_number_is_the_weighted_mean_in_every_format(written, base, tuned, tmp_path, name):
    described = convert.merge(written / "base.safetensors", written / "tuned", tmp_path / FORMATS[name], 0.3, name)
    assert described.format == name
    config, merged = convert.read(tmp_path / FORMATS[name])
    assert config == SMALL
    merged, first, second = flat(merged), flat(base), flat(tuned)
    assert merged.keys() == first.keys()
    for leaf, array in merged.items():
        expected = 0.7 * first[leaf].astype(np.float64) + 0.3 * second[leaf].astype(np.float64)
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-7)
        if not leaf.startswith("mask_decoder"):
            np.testing.assert_array_equal(array, first[leaf])


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends_are_the_two_models_bit_for_bit(written, tmp_path, alpha):
    described = convert.merge(written / "base.safetensors", written / "tuned", tmp_path / "sam", alpha)
    end = written / ("tuned" if alpha else "base.safetensors")
    assert described.checksum == convert.describe(end).checksum


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        (np.float16, np.float16, np.float16),
        (ml_dtypes.bfloat16, ml_dtypes.bfloat16, ml_dtypes.bfloat16),
        (np.float16, np.float32, np.float32),
        (np.float16, ml_dtypes.bfloat16, np.float32),
    ],
)
def test_halves_are_averaged_in_float32_and_rounded_once(first, second, result):
    from samjax.convert.merging import average

    ours, theirs = np.linspace(-3, 3, 1001).astype(first), np.linspace(5, -2, 1001).astype(second)
    leaves = [{"a": LazyArray(array.shape, array.dtype, lambda array=array: array)} for array in (ours, theirs)]
    leaf = average(*leaves, 0.4)["a"]
    expected = np.float32(0.6) * ours.astype(np.float32) + np.float32(0.4) * theirs.astype(np.float32)
    assert leaf.dtype == result == leaf.read().dtype
    np.testing.assert_array_equal(leaf.read(), expected.astype(result))


def test_parameters_are_read_one_at_a_time(base, tuned, tmp_path):
    """No more than one of each model is in memory at once."""
    from samjax.convert.merging import average

    read: list[weakref.ref] = []
    most = 0

    def counted(array):
        def fresh():
            nonlocal most
            copy = array.copy()
            read.append(weakref.ref(copy))
            most = max(most, sum(ref() is not None for ref in read))
            return copy

        return LazyArray(array.shape, array.dtype, fresh)

    models = [{name: counted(array) for name, array in flat(params).items()} for params in (base, tuned)]
    merged = average(*models, 0.5)
    assert not read
    convert.write(tmp_path / "sam.safetensors", SMALL, unflatten_dict(merged, sep="/"))
    assert most == 2


def test_thresholds_and_provenance_are_carried(written, base, tmp_path):
    described = convert.merge(written / "base.safetensors", written / "tuned", tmp_path / "sam", 0.25)
    assert described.thresholds == SUITED  # the tuned model has none of its own
    assert described.provenance["alpha"] == 0.25
    assert described.provenance["base"]["source"] == "base.safetensors"
    assert described.provenance["tuned"]["run"] == "mine"
    own = MaskThresholds(0.1, 0.2, 0.3)
    convert.write(tmp_path / "own", SMALL, base, thresholds=own)
    assert convert.merge(written / "base.safetensors", tmp_path / "own", tmp_path / "again", 0.25).thresholds == own


def test_two_networks_are_refused_with_what_differs(written, tmp_path):
    encoder = dataclasses.replace(SMALL.image_encoder, depth=3, image_size=(96, 96))
    other = dataclasses.replace(SMALL, image_encoder=encoder)
    convert.write(tmp_path / "other", other, random_params(other))
    with pytest.raises(CheckpointError) as caught:
        convert.merge(written / "tuned", tmp_path / "other", tmp_path / "sam", 0.5)
    first, *differing = str(caught.value).splitlines()
    assert "one network" in first
    assert sorted(differing) == [
        f"  image_encoder.depth: 2 in {written / 'tuned'}, 3 in {tmp_path / 'other'}",
        f"  image_encoder.image_size: (64, 64) in {written / 'tuned'}, (96, 96) in {tmp_path / 'other'}",
    ]
    assert not (tmp_path / "sam").exists()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(written, tmp_path, alpha):
    with pytest.raises(ValueError, match="between 0 and 1, got"):
        convert.merge(written / "base.safetensors", written / "tuned", tmp_path / "sam", alpha)


def test_neither_source_is_overwritten(written):
    for name in ("base.safetensors", "tuned"):
        with pytest.raises(FileExistsError, match="is the source itself"):
            convert.merge(written / "base.safetensors", written / "tuned", written / name, 0.5, overwrite=True)


@pytest.fixture(scope="module")
def change(written):
    """A file of what was tuned of `base`: the decoder's token, and queries of a block at half of a product of ones."""
    token = "mask_decoder/iou_token/embedding"
    factor = "image_encoder/blocks/0/attn/qkv/lora_q"
    leaves = {
        token: lazy(np.zeros_like(flat(random_params(SMALL, 1))[token])),
        f"{factor}/a": lazy(np.ones((48, 2), np.float32)),
        f"{factor}/b": lazy(np.ones((2, 48), np.float32)),
    }
    begun = Base("base", convert.describe(written / "base.safetensors").checksum, SMALL)
    path = written / "change.safetensors"
    convert.write_tuned(path, Tuned(begun, SMALL, {"mode": "patterns+lora"}, 0.5, leaves, SUITED, {"run": "mine"}))
    return path


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_what_was_tuned_is_applied_to_its_base_first(written, base, change, tmp_path, alpha):
    described = convert.merge(written / "base.safetensors", change, tmp_path / "sam", alpha)
    assert described.provenance["tuned"].items() >= {"source": "change.safetensors", "source_format": "tuned"}.items()
    assert described.thresholds == SUITED
    merged, expected = flat(convert.read(tmp_path / "sam")[1]), flat(base)
    expected["mask_decoder/iou_token/embedding"] = (1 - alpha) * expected["mask_decoder/iou_token/embedding"]
    queries = np.where(np.arange(3 * 48) < 48, np.float32(alpha * 0.5 * 2), 0)
    expected["image_encoder/blocks/0/attn/qkv/kernel"] = expected["image_encoder/blocks/0/attn/qkv/kernel"] + queries
    assert merged.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(merged[name], leaf, rtol=1e-6, atol=1e-6)


def test_to_another_base_it_is_not_applied(written, change, tmp_path):
    with pytest.raises(CheckpointError, match=r"tuned from base, .*Load it with its own base"):
        convert.merge(written / "tuned", change, tmp_path / "sam", 0.5)
    with pytest.raises(CheckpointError, match="needs its base"):
        convert.merge(change, written / "tuned", tmp_path / "sam", 0.5)
    assert not (tmp_path / "sam").exists()
