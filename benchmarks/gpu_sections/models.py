"""Models that are measured: the official sizes or, for tests, the smallest that has every part; random weights."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from example_models import parameter_of

from gpu_sections.jobs import Setting
from samjax import VARIANTS, SamConfig, checkpoint
from samjax.config import DecoderConfig, ViTConfig
from samjax.model import abstract_params
from samjax.sharding import path_name

NAMES = {"vit_b": "ViT-B", "vit_l": "ViT-L", "vit_h": "ViT-H"}
# Windows that do not divide the grid, both kinds of blocks, and cells of several pixels.
TINY = SamConfig(
    ViTConfig(width=32, depth=2, heads=2, global_blocks=(1,), image_size=(64, 64), patch_size=8, window_size=3),
    DecoderConfig(mlp_dim=32, iou_head_dim=16),
    width=32,
    mask_channels=8,
)


def config_of(setting: Setting, variant: str) -> SamConfig:
    return TINY if setting.tiny else VARIANTS[variant]


def random_params(config: SamConfig, dtype: str = "float32") -> dict[str, Any]:
    """Parameters on the device in which nothing is zero or one. They are drawn on the host, by all cores: on the device
    the draw would count as its peak of memory."""
    shapes, structure = jax.tree_util.tree_flatten_with_path(abstract_params(config))

    def draw(number: int) -> np.ndarray:
        path, leaf = shapes[number]
        noise = np.random.default_rng((0, number)).standard_normal(leaf.shape, np.float32)
        return checkpoint.cast(path_name(path), parameter_of(path, noise), dtype)

    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(draw, range(len(shapes))))
    return jax.tree.map(jax.numpy.asarray, jax.tree_util.tree_unflatten(structure, arrays))


def random_pixels(config: SamConfig, images: int) -> np.ndarray:
    """(images, h, w, 3) float32, as normalised photos are: values around 0 of about 1."""
    return np.random.default_rng(0).standard_normal((images, *config.image_size, 3), np.float32)
