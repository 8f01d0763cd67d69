"""Checkpoints of a family of encoders that other programs name in their own ways: numbers twice, batch norms."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict

from samjax import checkpoint, convert
from samjax.checkpoint import CheckpointError
from samjax.config import SamConfig, ViTConfig
from samjax.convert.mapping import find_entries
from samjax.convert.safetensors_file import read_safetensors, write_safetensors
from samjax.nn import encoders
from samjax.nn.encoders import FAMILIES, Family, family_of
from samjax.nn.encoders.inference import count, numbers
from samjax.nn.initialise import ZEROS, declare
from samjax.nn.layers import ModuleList


@dataclasses.dataclass(frozen=True)
class StagesConfig:
    """Stages of blocks, each a batch norm and a depthwise convolution."""

    family: str = "stages"
    image_size: tuple[int, int] = (64, 64)
    blocks: tuple[int, ...] = (1, 2)
    stride: int = 16
    depth: int = 3

    @property
    def grid(self):
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    @property
    def alignment(self):
        return self.stride

    def with_image_size(self, image_size):
        return dataclasses.replace(self, image_size=image_size)


class Arrays(nn.Module):
    """Parameters of these shapes."""

    shapes: dict[str, tuple[int, ...]]

    def setup(self):
        for name, shape in self.shapes.items():
            setattr(self, name, self.param(name, declare(ZEROS), shape))


class Block(nn.Module):
    def setup(self):
        self.norm = Arrays(dict.fromkeys(("scale", "bias", "mean", "var"), (8,)))
        self.conv = Arrays({"kernel": (3, 3, 1, 8), "bias": (8,)})


class Stage(nn.Module):
    count: int

    def setup(self):
        self.blocks = ModuleList(lambda _: Block(), tuple(range(self.count)))


class Stages(nn.Module):
    """Parameters only."""

    config: StagesConfig
    features: int
    execution: object

    def setup(self):
        self.layers = ModuleList(lambda stage: Stage(self.config.blocks[stage]), tuple(range(len(self.config.blocks))))
        self.neck = ModuleList(lambda _: Arrays({"kernel": (1, 1, 8, self.features)}), (0,))

    def __call__(self, pixels, branch_weights=None, origin=None, taps=()):
        del pixels, branch_weights, origin, taps
        for stage, blocks in enumerate(self.config.blocks):
            for block in range(blocks):
                _ = self.layers[stage].blocks[block].norm.scale, self.layers[stage].blocks[block].conv.bias
        return jnp.broadcast_to(self.neck[0].kernel[0, 0, 0], (*self.config.grid, self.features)), {}


_THEIRS = "image_encoder.layers.{}.blocks.{}"
_HUGGING_FACE = "vision_encoder.stages.{}.layers.{}"


def infer(shapes, declared):
    """A configuration with as many blocks as there are; the input's size cannot be told."""
    del declared
    stages = numbers(shapes, r"image_encoder\.layers\.(\d+)\.")
    blocks = tuple(count(shapes, rf"image_encoder\.layers\.{stage}\.blocks\.(\d+)\.") for stage in sorted(stages))
    return [SamConfig(StagesConfig(blocks=blocks))] if blocks else []


STAGES = Family(
    "stages",
    StagesConfig,
    build=Stages,
    resample=lambda params, config: params,
    tap_names=lambda config: (),
    layer=lambda config, name: 0,
    flops=lambda config, features: (0,),
    describe=lambda config: "stages",
    infer=infer,
    keys={
        "batch_norm": ((f"{_THEIRS}.norm", f"{_HUGGING_FACE}.batch_norm"),),
        "convolution": (
            (f"{_THEIRS}.conv", f"{_HUGGING_FACE}.conv"),
            ("image_encoder.neck.0", "vision_encoder.neck.conv1"),  # as ViT has it
        ),
    },
)
MODEL = dataclasses.replace(SMALL, image_encoder=StagesConfig())


def families(monkeypatch, *others):
    monkeypatch.setattr(encoders, "FAMILIES", (*FAMILIES, *others))


@pytest.fixture
def stages(monkeypatch):
    """The family among the others."""
    families(monkeypatch, STAGES)
    monkeypatch.setattr(checkpoint, "ENCODERS", (ViTConfig, StagesConfig))
    return random_params(MODEL)


def test_every_number_of_a_name_is_carried_over_in_its_place(stages):
    names = {
        "meta": "image_encoder.layers.1.blocks.0.conv.weight",
        "huggingface": "vision_encoder.stages.1.layers.0.conv.weight",
        "ours": "image_encoder/layers/1/blocks/0/conv/kernel",
    }
    for source, name in names.items():
        (entry,) = find_entries([name], source=source).values()
        assert {convention: entry.name_in(convention) for convention in names} == names
    assert find_entries(["image_encoder.layers.1.blocks.x.conv.weight"], source="meta") == {}


def test_names_must_have_as_many_numbers_as_each_other(monkeypatch):
    families(monkeypatch, dataclasses.replace(STAGES, keys={"linear": ((f"{_THEIRS}.fc", "vision_encoder.{}.fc"),)}))
    with pytest.raises(ValueError, match=r"as many numbers"):
        find_entries([], source="meta")


@pytest.mark.parametrize("convention", ["meta", "huggingface"])
def test_batch_norms_and_depthwise_convolutions_are_read_and_counters_left_out(stages, convention, tmp_path):
    convert.write(tmp_path / "sam.safetensors", MODEL, stages)
    tensors = read_safetensors(tmp_path / "sam.safetensors")
    block = "image_encoder.layers.1.blocks.1"
    ours = stages["image_encoder"]["layers"]["1"]["blocks"]["1"]
    assert tensors[f"{block}.conv.weight"].shape == (8, 1, 3, 3)
    np.testing.assert_array_equal(tensors[f"{block}.norm.running_var"].read(), ours["norm"]["var"])
    if convention == "huggingface":
        table = find_entries(tensors, source="meta", family=STAGES)
        tensors = {table[name].name_in(convention): tensor for name, tensor in tensors.items()}
        block = "vision_encoder.stages.1.layers.1"
    norm = f"{block}.norm" if convention == "meta" else f"{block}.batch_norm"
    tensors[f"{norm}.num_batches_tracked"] = checkpoint.lazy(np.int64(7))
    write_safetensors(tmp_path / "counted.safetensors", tensors, {})
    described = convert.describe(tmp_path / "counted.safetensors")
    assert described.dropped == (f"{norm}.num_batches_tracked (batches that were counted)",)
    config, params = convert.read(tmp_path / "counted.safetensors")
    assert config == MODEL
    expected, found = (flatten_dict(tree, sep="/") for tree in (stages, params))
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_counter_of_what_is_no_batch_norm_is_refused_like_any_other_name(tmp_path):
    convert.write(tmp_path / "sam.safetensors", SMALL, random_params(SMALL))
    tensors = read_safetensors(tmp_path / "sam.safetensors")
    tensors["image_encoder.blocks.0.norm1.num_batches_tracked"] = checkpoint.lazy(np.int64(7))
    write_safetensors(tmp_path / "more.safetensors", tensors, {})
    with pytest.raises(CheckpointError, match=r"norm1\.num_batches_tracked"):
        convert.read(tmp_path / "more.safetensors")


def test_which_family_a_checkpoint_is_of_follows_from_its_shapes(stages, tmp_path):
    for blocks in ((1, 2), (2, 1, 1)):
        model = dataclasses.replace(MODEL, image_encoder=StagesConfig(blocks=blocks))
        convert.write(tmp_path / f"{len(blocks)}.pth", model, random_params(model))
        assert convert.read(tmp_path / f"{len(blocks)}.pth")[0] == model
    convert.write(tmp_path / "vit.pth", SMALL, random_params(SMALL))
    assert convert.read(tmp_path / "vit.pth")[0] == SMALL


def test_a_family_that_infers_nothing_reads_no_other_programs_checkpoints(stages, monkeypatch, tmp_path):
    convert.write(tmp_path / "sam.pth", MODEL, stages)
    families(monkeypatch, dataclasses.replace(STAGES, infer=None))
    with pytest.raises(CheckpointError, match=r"sam\.pth"):
        convert.read(tmp_path / "sam.pth")


def test_a_family_knows_its_own_names_only(stages):
    theirs, vits = "image_encoder.layers.0.blocks.0.conv.weight", "image_encoder.pos_embed"
    assert set(find_entries([theirs, vits], source="meta")) == {theirs, vits}
    assert set(find_entries([theirs, vits], source="meta", family=STAGES)) == {theirs}
    assert set(find_entries([theirs, vits], source="meta", family=family_of(SMALL.image_encoder))) == {vits}


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        # A norm's weight is a scale here, and a kernel there.
        ({"linear": (("image_encoder.neck.1", "vision_encoder.neck.conv9"),)}, r"image_encoder\.neck\.1\.weight"),
        (
            {"linear": (("image_encoder.neck.{}", None),)},
            r"image_encoder\.neck\.[0-3]\.weight",
        ),  # any number, so that one
        (
            {"convolution": (("image_encoder.stem", "vision_encoder.neck.conv1"),)},
            r"vision_encoder\.neck\.conv1\.weight",
        ),
        ({"linear": (("mask_decoder.iou_token", None),)}, r"mask_decoder\.iou_token\.weight"),
    ],
)
def test_families_that_mean_different_things_by_a_name_are_told(monkeypatch, keys, name):
    families(monkeypatch, dataclasses.replace(STAGES, keys=keys))

    def look_up():
        for source in ("meta", "huggingface"):
            find_entries(["image_encoder.pos_embed"], source=source)

    with pytest.raises(ValueError, match=rf"the key table gives .*{name}.* two meanings"):
        look_up()


def test_what_hugging_face_has_no_name_for_is_refused_there_and_goes_elsewhere(stages, monkeypatch, tmp_path):
    keys = {kind: tuple((meta, None) for meta, _ in pairs) for kind, pairs in STAGES.keys.items()}
    families(monkeypatch, dataclasses.replace(STAGES, keys=keys))
    with pytest.raises(CheckpointError, match="Hugging Face's SamModel has no form of this model") as caught:
        convert.write(tmp_path / "hf", MODEL, stages, to="huggingface")
    assert "Meta's and the native format have" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    convert.write(tmp_path / "sam.pth", MODEL, stages)
    convert.convert(tmp_path / "sam.pth", tmp_path / "native")
    assert convert.read(tmp_path / "native")[0] == MODEL
    with pytest.raises(CheckpointError, match="no form of this model"):
        convert.convert(tmp_path / "sam.pth", tmp_path / "hf", "huggingface")
