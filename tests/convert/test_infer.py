"""The configuration follows from the shapes of the parameters, and no shapes break the inference."""

import pytest
from example_configs import CUSTOM, meta_tensors
from example_models import SMALL
from hypothesis import given
from hypothesis import strategies as st

from samjax import VARIANTS
from samjax.convert.infer import candidates
from samjax.nn.encoders.inference import Declared


@pytest.mark.parametrize("config", [*VARIANTS.values(), *CUSTOM.values()], ids=[*VARIANTS, *CUSTOM])
def test_the_configuration_follows_from_the_shapes(config):
    shapes = {name: tensor.shape for name, tensor in meta_tensors(config).items()}
    assert candidates(shapes)[0] == config


SIZES = st.sampled_from([0, 1, 2, 3, 5, 8, 16, 63, 64, 255, 4096, 65_536, 65_537, 1 << 40])


TELLING = (  # parameters whose shapes the configuration follows from
    "image_encoder.pos_embed",
    "image_encoder.patch_embed.proj.weight",
    "image_encoder.blocks.0.attn.rel_pos_h",
    "image_encoder.blocks.1.attn.rel_pos_w",
    "image_encoder.blocks.0.mlp.lin1.weight",
    "mask_decoder.iou_token.weight",
    "mask_decoder.mask_tokens.weight",
    "mask_decoder.transformer.layers.0.mlp.lin1.weight",
    "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight",
    "mask_decoder.iou_prediction_head.layers.0.weight",
    "prompt_encoder.mask_downscaling.3.weight",
)


@given(st.data())
def test_any_shapes_give_configurations_that_can_be_built(data):
    """No division by zero, no index beyond a shape, no table that needs more memory than there is."""
    shapes = {name: tensor.shape for name, tensor in meta_tensors(SMALL).items()}
    for name in data.draw(st.lists(st.sampled_from(TELLING), min_size=1, max_size=4)):
        shape = list(shapes[name])
        if shape and data.draw(st.booleans()):
            shape[data.draw(st.integers(0, len(shape) - 1))] = data.draw(SIZES)
        else:
            shape = data.draw(st.lists(SIZES, max_size=5))
        shapes[name] = tuple(shape)
    for config in candidates(shapes, Declared(decoder_heads=data.draw(st.sampled_from([8, 1, 3, 0, -8])))):
        decoder, encoder = config.mask_decoder, config.image_encoder
        assert (config.width // decoder.downsample) % decoder.heads == 0
        assert config.width >= decoder.downsample * decoder.heads
        assert encoder.width % encoder.heads == 0
        assert 0 < min(config.grid) <= max(config.grid) <= 2048


def test_grids_whose_tables_would_not_fit_in_memory_are_not_believed():
    shapes = {name: tensor.shape for name, tensor in meta_tensors(SMALL).items()}
    shapes["image_encoder.pos_embed"] = (1, 4096, 8, 48)
    assert {max(config.grid) for config in candidates(shapes)} <= {8, 32, 64}
