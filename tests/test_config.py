import dataclasses
import hashlib
import json
import math

import jax
import pytest

from samjax import VARIANTS, SamConfig
from samjax.config import ViTConfig, written_fields
from samjax.model import abstract_params


@pytest.mark.parametrize(
    ("variant", "parameters"), [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)]
)
def test_variants_have_the_published_numbers_of_parameters(variant, parameters):
    config = VARIANTS[variant]
    buffer = config.width  # the random Fourier matrix (2, width / 2), which the reference does not count
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config))) == parameters + buffer


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_parameters_are_float32(variant):
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(abstract_params(VARIANTS[variant]))} == {"float32"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_knows_its_variant_at_any_image_size(variant):
    config = VARIANTS[variant]
    assert config.variant == variant
    assert config.with_image_size(512).variant == variant
    assert config.with_image_size((256, 384)).variant == variant


def test_a_config_outside_the_table_is_custom():
    assert SamConfig(width=128).variant == "custom"


def test_sizes_follow_from_the_image_size():
    config = VARIANTS["vit_b"].with_image_size((512, 768))
    assert config.image_size == (512, 768)
    assert config.grid == (32, 48)
    assert config.mask_size == (128, 192)


def test_an_image_size_given_as_one_number_is_a_square():
    assert VARIANTS["vit_b"].with_image_size(512) == VARIANTS["vit_b"].with_image_size((512, 512))


def test_configs_are_frozen_and_hashable():
    config = SamConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 1
    assert hash(config) == hash(SamConfig())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (1000, 1024)}, "multiples of the patch size 16"),
        ({"image_size": (0, 1024)}, "multiples of the patch size 16"),
        ({"width": 770}, "width 770 must be divisible by heads 12"),
        ({"global_blocks": (2, 12)}, "must lie in 0..11"),
    ],
)
def test_impossible_encoders_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ViTConfig(**fields)


def test_names_of_0_1_are_found_with_a_warning():
    from samjax import config, execution

    with pytest.warns(FutureWarning, match="now samjax.config.ViTConfig"):
        assert config.ImageEncoderConfig is ViTConfig
    with pytest.warns(FutureWarning, match="now samjax.execution.Execution"):
        assert config.Execution is execution.Execution
    with pytest.raises(AttributeError, match="no attribute 'Executions'"):
        config.Executions  # noqa: B018


FIELDS = {
    "hq": VARIANTS["vit_b"].with_hq(),
    "adapter": SamConfig(ViTConfig(adapter=64)),
    "channels": SamConfig(ViTConfig(channels=4)),
}


@pytest.mark.parametrize("field", FIELDS)
def test_younger_fields_are_written_and_shown_where_they_are_not_at_their_default(field):
    assert f'"{field}"' in json.dumps(written_fields(FIELDS[field]))
    assert f"{field}=" in repr(FIELDS[field])
    assert f'"{field}"' not in json.dumps(written_fields(VARIANTS["vit_b"]))
    assert f" {field}=" not in repr(VARIANTS["vit_b"])


def test_a_configuration_reads_as_it_did_before_there_were_younger_fields():
    """Keys of stored embeddings and of evaluations are made of it."""
    assert hashlib.sha256(repr(VARIANTS["vit_tiny"]).encode()).hexdigest()[:16] == "0657e70f67d0a07c"
    assert repr(ViTConfig()) == (
        "ViTConfig(width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11), image_size=(1024, 1024), "
        "patch_size=16, window_size=14, mlp_ratio=4)"
    )


@pytest.mark.parametrize(("field", "value"), [("adapter", -1), ("channels", 2)])
def test_impossible_adapters_and_channels_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        ViTConfig(**{field: value})
