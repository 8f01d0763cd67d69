"""Every name is used once and every shape fits, or the error explains what differs."""

import numpy as np
import pytest
from example_configs import meta_tensors
from example_models import SMALL, random_params
from example_pickles import Built, Tensor, save
from example_refusals import refusal
from flax.traverse_util import flatten_dict

from samjax import VARIANTS, convert
from samjax.checkpoint import CheckpointError, lazy
from samjax.convert.state_dict import open_state_dict
from samjax.convert.torch_writer import write_torch


def write(folder, tensors):
    write_torch(folder / "sam.pth", tensors)
    return folder / "sam.pth"


def error(folder, tensors):
    with pytest.raises(CheckpointError) as caught:
        convert.read(write(folder, tensors))
    # Converting it fails in the same way, and writes nothing.
    with pytest.raises(CheckpointError):
        convert.convert(folder / "sam.pth", folder / "out.safetensors")
    assert [file.name for file in folder.iterdir()] == ["sam.pth"]
    return str(caught.value)


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize("prefix", ["module.", "sam.", "module.sam.", "_orig_mod.", "model.sam_model."])
def test_prefixes_of_wrappers_are_taken_off(prefix, tensors, tmp_path):
    config, params = convert.read(write(tmp_path, {prefix + name: tensor for name, tensor in tensors.items()}))
    assert config == SMALL
    assert flatten_dict(params, sep="/").keys() == flatten_dict(random_params(SMALL), sep="/").keys()


def test_a_missing_parameter_is_named(tensors, tmp_path):
    message = error(tmp_path, without(tensors, "mask_decoder.transformer.layers.1.norm4.bias"))
    assert "missing (1):\n    mask_decoder.transformer.layers.1.norm4.bias (64,)" in message
    assert "extra" not in message
    assert "misshaped" not in message


def test_an_extra_parameter_is_named(tensors, tmp_path):
    message = error(tmp_path, tensors | {"criterion.weight": lazy(np.ones(3, np.float32))})
    assert "extra (1):\n    criterion.weight (3,)" in message
    assert "missing" not in message


def test_a_renamed_parameter_is_found_by_shape_and_name(tensors, tmp_path):
    renamed = without(tensors, "image_encoder.neck.0.weight")
    renamed["image_encoder.neck.conv1.weight"] = tensors["image_encoder.neck.0.weight"]
    message = error(tmp_path, renamed)
    assert "image_encoder.neck.0.weight (64, 48, 1, 1) (nearest: image_encoder.neck.conv1.weight)" in message
    assert "image_encoder.neck.conv1.weight (64, 48, 1, 1) (nearest: image_encoder.neck.0.weight)" in message


def test_a_misshaped_parameter_is_named_with_both_shapes(tensors, tmp_path):
    name = "image_encoder.blocks.1.mlp.lin1.weight"
    message = error(tmp_path, tensors | {name: lazy(np.zeros((192, 47), np.float32))})
    assert f"misshaped (1):\n    {name}: expected (192, 48), found (192, 47)" in message


def test_a_transposed_square_matrix_is_beyond_shapes_but_a_missing_axis_is_not(tensors, tmp_path):
    name = "image_encoder.patch_embed.proj.weight"
    message = error(tmp_path, tensors | {name: lazy(np.zeros((48, 192), np.float32))})
    assert name in message


def test_one_damaged_shape_of_a_known_variant_is_one_difference(tmp_path):
    tensors = meta_tensors(VARIANTS["vit_tiny"])
    tensors["mask_decoder.mask_tokens.weight"] = lazy(np.zeros((5, 128), np.float32))
    message = error(tmp_path, tensors)
    assert "does not fit a vit_tiny" in message
    assert "misshaped (1):\n    mask_decoder.mask_tokens.weight: expected (4, 128), found (5, 128)" in message
    assert "missing" not in message


@pytest.mark.parametrize("rows", [1, 4, 7, 12, 0])
def test_a_decoder_too_narrow_for_its_heads_is_refused_like_any_other(rows, tensors, tmp_path):
    """Its cross-attentions have fewer channels than heads, or a number that the heads do not divide."""
    narrow = dict(tensors)
    for name, tensor in tensors.items():
        if "token_to_image" in name or "image_to_token" in name:
            axis = int("out_proj.weight" in name)
            if not name.endswith("out_proj.bias"):
                narrow[name] = lazy(np.take(tensor.read(), range(rows), axis))
    message = error(tmp_path, narrow)
    assert "does not fit a" in message
    assert "misshaped" in message


def test_long_lists_of_differences_are_cut(tensors, tmp_path):
    half = {name: tensor for name, tensor in tensors.items() if not name.startswith("mask_decoder.transformer")}
    message = error(tmp_path, half)
    assert "… and" in message
    assert message.count("\n") < 40


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_numbers_of_other_types_are_refused(dtype, tensors, tmp_path):
    name = "mask_decoder.iou_token.weight"
    message = error(tmp_path, tensors | {name: lazy(np.ones((1, 64), dtype))})
    assert f"{name} is {np.dtype(dtype).name}; expected float32, float16, bfloat16 or float64, to be rounded" in message


def test_empty_and_foreign_dictionaries_are_refused(tmp_path):
    assert "no state dict" in error(tmp_path, {})
    message = error(tmp_path, {"layer1.0.conv1.weight": lazy(np.ones((2, 2), np.float32))})
    assert "is no SAM checkpoint" in message
    assert "It looks like a ResNet." in message


def test_a_relative_of_sam_is_named_beside_the_differences(tensors, tmp_path):
    message = error(tmp_path, tensors | {"mask_decoder.hq_token.weight": lazy(np.ones((1, 64), np.float32))})
    assert "The names look like Hugging Face's form of HQ-SAM, which is another architecture." in message
    assert "mask_decoder.hq_token.weight (1, 64)" in message


def test_a_part_of_hq_sam_is_an_incomplete_hq_sam(tensors, tmp_path):
    message = error(tmp_path, tensors | {"mask_decoder.hf_token.weight": lazy(np.ones((1, 64), np.float32))})
    assert "mask_decoder.compress_vit_feat.0.weight (48, 64, 2, 2)" in message


def test_the_file_of_the_fixture_is_sound(tensors, tmp_path):
    read = open_state_dict(write(tmp_path, tensors)).tensors
    assert all(np.array_equal(read[name].read(), tensor.read()) for name, tensor in tensors.items())
    assert convert.read(tmp_path / "sam.pth")[0] == SMALL


def test_wrappers_within_names_are_taken_out(state, checksum, tmp_path):
    content = {
        name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module.").replace(
            "image_encoder.", "image_encoder._orig_mod."
        ): tensor
        for name, tensor in state.items()
    }
    content = {f"module._forward_module.model.{name}": tensor for name, tensor in content.items()}
    assert convert.describe(save(tmp_path / "sam.pth", {"state_dict": content})).checksum == checksum


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.model."])
def test_an_object_in_the_place_of_a_tensor_is_named(prefix, state, tmp_path):
    content = {prefix + name: tensor for name, tensor in state.items()}
    content[f"{prefix}image_encoder.pos_embed"] = Built("my_pkg.Quantised", b"123")
    message = refusal(save(tmp_path / "sam.pth", {"model": content}))
    assert "image_encoder.pos_embed is a my_pkg.Quantised, expected a tensor of numbers" in message


def test_float64_is_rounded_with_a_word(arrays, checksum, tmp_path):
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    between = {name: np.nextafter(array, np.inf) for name, array in exact.items()}
    for content in (exact, between):
        path = save(tmp_path / "sam.pth", {name: Tensor(array) for name, array in content.items()})
        with pytest.warns(UserWarning, match=rf"{len(arrays)} of {len(arrays)} parameters are float64 and are rounded"):
            convert.convert(path, tmp_path / "out.pth", overwrite=True)
        described = convert.describe(tmp_path / "out.pth")
        assert described.dtypes == ("float32",)
        assert described.checksum == checksum
        assert not described.warnings
    exact["image_encoder.pos_embed"][0, 0, 0, 0] = 1e300
    path = save(tmp_path / "large.pth", {name: Tensor(array) for name, array in exact.items()})
    with pytest.warns(UserWarning, match="rounded"):
        message = refusal(path)
    assert "image_encoder.pos_embed holds numbers that are too large for float32" in message
