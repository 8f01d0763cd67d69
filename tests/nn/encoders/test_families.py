"""The table of encoder families, and another family than ViT all the way through the library."""

import dataclasses
import json
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_photo
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from samjax import Prompts, Sam, checkpoint, config, convert
from samjax.checkpoint import CheckpointError, from_json
from samjax.config import EncoderConfig, SamConfig, ViTConfig
from samjax.nn import encoders
from samjax.nn.encoders import FAMILIES, Family, family_of
from samjax.nn.layers import Dense, gelu


@dataclasses.dataclass(frozen=True)
class PatchesConfig:
    """Patches, each by itself."""

    family: str = "patches"
    image_size: tuple[int, int] = (64, 96)
    stride: int = 16
    depth: int = 1
    alignment: ClassVar[int] = 16

    @property
    def grid(self):
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    def with_image_size(self, image_size):
        return dataclasses.replace(self, image_size=image_size)


class Patches(nn.Module):
    config: PatchesConfig
    features: int
    execution: object

    def setup(self):
        self.embed = Dense(3, 12, self.execution.dtype, patch=self.config.stride)
        self.head = Dense(12, self.features, self.execution.dtype)

    def __call__(self, pixels, branch_weights=None, origin=None, taps=()):
        x = self.embed(pixels)
        tapped = {"embed": x} if "embed" in taps else {}
        return self.head(gelu(x)), tapped


PATCHES = Family(
    "patches",
    PatchesConfig,
    build=Patches,
    resample=lambda params, config: params,
    tap_names=lambda config: ("embed",),
    layer=lambda config, name: 0 if name.startswith("embed") else 2,
    flops=lambda config, features: [2 * math.prod(config.grid) * 12 * n for n in (3 * config.stride**2, features)],
    describe=lambda config: f"patches of {config.stride}",
    keys={},
    matrices=(r"kernel$",),
    rules=((r"head/kernel", ("fsdp", "tensor")),),
)
MODEL = dataclasses.replace(SMALL, image_encoder=PatchesConfig())


@pytest.fixture
def patches(monkeypatch):
    """The family among the others, and in configurations."""
    monkeypatch.setattr(encoders, "FAMILIES", (*FAMILIES, PATCHES))
    monkeypatch.setattr(checkpoint, "ENCODERS", (ViTConfig, PatchesConfig))
    return Sam.init(MODEL, jax.random.key(0))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_configurations_keep_their_promises(family):
    chosen = family.config()
    assert isinstance(chosen, EncoderConfig)
    assert chosen.grid == (chosen.image_size[0] // chosen.stride, chosen.image_size[1] // chosen.stride)
    assert chosen.alignment % chosen.stride == 0
    smaller = chosen.with_image_size((2 * chosen.alignment, chosen.alignment))
    assert smaller.grid == (2 * chosen.alignment // chosen.stride, chosen.alignment // chosen.stride)
    assert family_of(chosen) is family


def test_the_tables_of_families_and_of_their_configurations_agree():
    assert {family.config for family in FAMILIES} == set(config.ENCODERS)
    tags = [getattr(encoder, "family", None) for encoder in config.ENCODERS]
    assert len(set(tags)) == len(tags)


def test_a_configuration_of_no_family_is_refused():
    with pytest.raises(ValueError, match=r"no family .* type PatchesConfig"):
        family_of(PatchesConfig())


def test_a_photo_is_segmented_by_an_encoder_of_another_family(patches):
    embedding = patches.encode(random_photo(50, 90), taps=("embed",))
    assert embedding.features.shape == (4, 6, SMALL.width)
    assert embedding.taps["embed"].shape == (4, 6, 12)
    prediction = patches.predict(embedding, Prompts.of(points=[[[10, 20]]]))
    assert prediction.logits.shape == (1, 3, 16, 24)
    assert np.isfinite(prediction.logits).all()
    other = patches.with_image_size((32, 64))
    assert other.encode(random_photo(50, 90)).features.shape == (2, 4, SMALL.width)


def test_other_programs_have_no_names_for_it(patches, tmp_path):
    with pytest.raises(CheckpointError, match="no name for image_encoder/embed/"):
        convert.write(tmp_path / "sam.safetensors", MODEL, patches.params)
    convert.write(tmp_path / "native", MODEL, patches.params)
    assert convert.read(tmp_path / "native")[0] == MODEL


def test_its_configuration_goes_through_json(patches):
    fields = json.loads(json.dumps(dataclasses.asdict(MODEL)))
    assert from_json(SamConfig, fields) == MODEL
    vit = json.loads(json.dumps(dataclasses.asdict(SMALL)))
    assert "family" not in vit["image_encoder"]  # as in the files of 0.1
    assert from_json(SamConfig, vit) == SMALL
    fields["image_encoder"]["family"] = "pyramid"
    with pytest.raises(CheckpointError, match="unknown family 'pyramid'"):
        from_json(SamConfig, fields)


def test_the_family_says_where_its_parameters_lie(patches):
    from samjax.sharding import AXES, partition

    mesh = Mesh(np.array(jax.devices()[:1] * 8).reshape(2, 2, 2), AXES)  # its shape is all that matters here
    for name, expected in (
        ("image_encoder/head/kernel", P("fsdp", "tensor")),
        ("ema/image_encoder/head/kernel", P("fsdp", "tensor")),
        ("image_encoder/embed/qkv/kernel", P()),  # ViT's
        ("mask_decoder/head/kernel", P()),
        ("mask_decoder/transformer/layers/0/mlp/lin1/kernel", P("fsdp", "tensor")),
    ):
        assert partition(name, (12, 64), mesh, MODEL.image_encoder) == expected, name
    assert partition("image_encoder/head/kernel", (12, 64), mesh, SMALL.image_encoder) == P()


def test_muon_moves_the_matrices_that_the_family_names_and_no_convolution(patches):
    from samjax.sharding import path_name
    from samjax.train.config import OptimConfig
    from samjax.train.optim import make_optimizer

    optimizer = make_optimizer(OptimConfig(optimizer="muon"), MODEL, 10)
    state = jax.eval_shape(optimizer.init, patches.params)
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    by_muon, by_adam = ({name for name in names if f"/{kind}/" in name} for kind in ("muon", "adam"))
    assert patches.params["image_encoder"]["embed"]["kernel"].ndim == 4
    assert {name.partition("/image_encoder/")[2] for name in by_muon if "image_encoder" in name} == {"head/kernel"}
    assert {name.partition("/image_encoder/")[2] for name in by_adam if "image_encoder" in name} == {
        "embed/kernel",
        "embed/bias",
        "head/bias",
    }


def test_it_is_trained_with_rates_by_layer(patches, quick_compilation):
    from example_training import PICO, nano_batch

    from samjax.sharding import make_mesh
    from samjax.train.config import InteractionConfig, OptimConfig, TrainConfig
    from samjax.train.flops import encoder_flops
    from samjax.train.optim import learning_rate_factor, make_optimizer
    from samjax.train.state import init_state
    from samjax.train.step import make_step

    assert encoder_flops(MODEL) == 2 * 24 * 12 * (3 * 256 + SMALL.width)
    options = OptimConfig(layer_decay=0.5)
    factors = [learning_rate_factor(options, MODEL, f"image_encoder/{name}/kernel") for name in ("embed", "head")]
    assert factors == [0.25, 1.0]

    model = dataclasses.replace(PICO, image_encoder=PatchesConfig(image_size=(32, 32), stride=8))
    recipe, mesh = TrainConfig(interaction=InteractionConfig(0, 0)), make_mesh(devices=jax.devices()[:1])
    optimizer = make_optimizer(recipe.optim, model, 10)
    state = init_state(recipe, model, Sam.init(model).params, optimizer, mesh)
    _, metrics = make_step(recipe, model, optimizer, mesh)(state, nano_batch(2))
    assert metrics["finite"]
    assert jnp.isfinite(metrics["gradient_norm"])
