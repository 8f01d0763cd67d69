"""Grids that are not square. Meta's network takes them once its position tables are resized."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL
from parity.comparison import CASES, EMBEDDING_BAR, IOU_BAR, LOGITS_BAR, prompts_of, relative_error

from samjax import Embedding
from samjax.model import jitted_encode

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("image_size", [(40, 88), (96, 64), (128, 128), (24, 24)])
def test_a_resized_network_is_the_references_with_resized_tables(pair, image_size):
    import torch
    from torch.nn.functional import interpolate

    predictor, sam = pair(SMALL, seed=1)
    reference, sam = predictor.model, sam.with_image_size(image_size)

    # What users of the reference do: bicubic absolute positions; it resizes relative ones itself, linearly.
    encoder, grid = reference.image_encoder, sam.config.grid
    table = interpolate(encoder.pos_embed.detach().permute(0, 3, 1, 2), grid, mode="bicubic", align_corners=False)
    encoder.pos_embed = torch.nn.Parameter(table.permute(0, 2, 3, 1))
    reference.prompt_encoder.image_embedding_size = grid
    reference.prompt_encoder.input_image_size = image_size

    pixels = np.random.default_rng(0).standard_normal((*image_size, 3)).astype(np.float32)
    with torch.no_grad():
        features = encoder(torch.tensor(pixels).permute(2, 0, 1)[None])
    ours = jitted_encode(sam.config, sam.params, jnp.asarray(pixels), sam.execution).image
    assert relative_error(ours, features[0].permute(1, 2, 0)) <= EMBEDDING_BAR

    size = jnp.asarray(image_size, jnp.int32)
    embedding = Embedding(ours, size, size)
    for name in ("one point", "all together"):
        arguments = CASES[name].arguments(image_size, sam.config.mask_size)
        tensors = {key: None if x is None else torch.tensor(x).float()[None] for key, x in arguments.items()}
        with torch.no_grad():
            sparse, dense = reference.prompt_encoder(
                (tensors["point_coords"], tensors["point_labels"]), tensors["box"], tensors["mask_input"]
            )
            logits, iou = reference.mask_decoder(features, reference.prompt_encoder.get_dense_pe(), sparse, dense, True)
        prediction = sam.predict(embedding, prompts_of(arguments))
        assert relative_error(prediction.logits, logits) <= LOGITS_BAR
        assert relative_error(prediction.iou, iou) <= IOU_BAR


def test_resizing_leaves_the_original_model_alone(pair):
    _, sam = pair(SMALL)
    before = jax.tree.map(np.array, sam.params)
    sam.with_image_size((40, 88))
    jax.tree.map(np.testing.assert_array_equal, sam.params, before)
