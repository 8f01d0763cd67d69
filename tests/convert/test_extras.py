"""Tensors beside a complete model are dropped on request; Meta's own constants always are."""

import ml_dtypes
import numpy as np
import pytest
from example_models import SMALL
from example_pickles import Tensor, save
from example_refusals import refusal

from samjax import convert, hub
from samjax.checkpoint import CheckpointError

EXTRA = {
    "criterion.weight": np.ones(3, np.float32),
    "teacher.image_encoder.pos_embed": np.ones((1, 8, 8, 48), np.float32),
    "bn.num_batches_tracked": np.array(3),
    "logit_scale": np.ones((), np.float32),
}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.sam."])
def test_extra_tensors_are_refused_with_the_way_to_drop_them(prefix, arrays, checksum, tmp_path):
    content = {prefix + name: Tensor(array) for name, array in (arrays | EXTRA).items()}
    path = save(tmp_path / "sam.pth", content)
    message = refusal(path)
    assert "holds a complete custom at (64, 64), and other tensors" in message
    assert "extra (4):\n    criterion.weight (3,)" in message
    assert "--drop 'criterion.*' --drop 'teacher.*' --drop 'bn.*' --drop 'logit_scale'" in message
    assert "drop=['criterion.*', 'teacher.*', 'bn.*', 'logit_scale']" in message
    drop = ["criterion.*", f"{prefix}teacher.*", "bn.num_*", "logit_?cale"]
    described = convert.convert(path, tmp_path / "out", drop=drop)
    assert described.checksum == checksum
    assert sorted(name.removeprefix(prefix) for name in described.dropped) == sorted(EXTRA)
    assert hub.load(path, drop=drop).config == SMALL


def test_extra_tensors_of_any_type_are_dropped_from_safetensors(arrays, checksum, tmp_path):
    from safetensors.numpy import save_file

    save_file(
        arrays | {"loss.seen": np.array([True]), "loss.count": np.ones(2, np.uint8)}, tmp_path / "sam.safetensors"
    )
    path = tmp_path / "sam.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"BOOL"', b'"F8_E5M2"')  # which NumPy does not know
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    assert "extra (2)" in refusal(path)
    assert convert.describe(path, drop=["loss.*"]).checksum == checksum


def test_a_teacher_of_the_same_names_is_dropped_or_read_instead(arrays, checksum, tmp_path):
    content = {f"teacher.{name}": Tensor(array + 1) for name, array in arrays.items()}
    content |= {f"student.{name}": Tensor(array) for name, array in arrays.items()}
    path = save(tmp_path / "sam.pth", content)
    assert "complete" in refusal(path)
    assert convert.describe(path, drop="teacher.*").checksum == checksum
    assert convert.describe(path, drop="student.*").checksum != checksum


def test_dropping_what_the_model_needs_is_refused_and_a_pattern_for_nothing_is_named(state, checksum, tmp_path):
    path = save(tmp_path / "sam.pth", state)
    message = refusal(path, drop=["mask_decoder.iou_token.*"])
    assert "It needs mask_decoder.iou_token.weight, which was to be dropped." in message
    with pytest.warns(UserWarning, match="no tensor has a name like 'los.*', which was to be dropped"):
        convert.read(path, drop=["los.*"])
    convert.convert(path, tmp_path / "native")
    with pytest.raises(CheckpointError, match="there is nothing to drop"):
        hub.load(tmp_path / "native", drop=["loss.*"])


MEAN, DEVIATION = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("scale", [1, 255])
def test_metas_own_constants_are_dropped(scale, dtype, state, checksum, tmp_path):
    constants = {"pixel_mean": (MEAN / scale).reshape(3, 1, 1), "pixel_std": (DEVIATION / scale).reshape(1, 3, 1, 1)}
    content = state | {name: Tensor(array.astype(dtype)) for name, array in constants.items()}
    described = convert.describe(save(tmp_path / "sam.pth", {f"module.{name}": t for name, t in content.items()}))
    assert described.checksum == checksum
    assert described.dropped == ("pixel_mean (Meta's own values)", "pixel_std (Meta's own values)")


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        (MEAN * 1.001, DEVIATION),
        (MEAN[::-1], DEVIATION),
        (MEAN / 255, DEVIATION),
        (np.zeros(3), np.ones(3)),
        (MEAN, DEVIATION[:1]),
    ],
    ids=["nearly", "BGR", "of two scales", "none", "one channel"],
)
def test_other_constants_are_refused_as_the_masks_would_be_wrong(mean, deviation, state, checksum, tmp_path):
    constants = {"pixel_mean": Tensor(np.float32(mean)), "pixel_std": Tensor(np.float32(deviation))}
    path = save(tmp_path / "sam.pth", state | constants)
    message = refusal(path)
    assert "samjax normalises photos as Meta does, with pixel_mean [123.675, 116.28, 103.53]" in message
    assert "--drop 'pixel_mean' --drop 'pixel_std'" in message
    assert convert.describe(path, drop=["pixel_*"]).checksum == checksum
