"""Models for tests: small enough to compile in seconds, random in every parameter, the same on every machine."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from samjax import Sam, SamConfig
from samjax.config import DecoderConfig, ViTConfig
from samjax.execution import Execution
from samjax.model import abstract_params

# Everything that the full-size models have, in small: windows that do not divide the grid, both kinds of
# blocks, and no two sizes alike where a mix-up would go unseen.
SMALL = SamConfig(
    ViTConfig(width=48, depth=2, heads=3, global_blocks=(0,), image_size=(64, 64), patch_size=8, window_size=3),
    DecoderConfig(mlp_dim=56, iou_head_dim=40),
    width=64,
)


def with_patches(config: SamConfig, side: int, patch_size: int) -> SamConfig:
    """The network for square inputs and patches of these sizes, pixels."""
    encoder = dataclasses.replace(config.image_encoder, image_size=(side, side), patch_size=patch_size)
    return dataclasses.replace(config, image_encoder=encoder)


def random_params(config: SamConfig, seed: int = 0) -> dict:
    """Parameters in which nothing is zero or one: whatever is swapped, dropped or misplaced changes the answer."""
    # RandomState because its stream is frozen for good: the golden files depend on it.
    random = np.random.RandomState(seed)

    def draw(path, leaf):
        return parameter_of(path, random.standard_normal(leaf.shape).astype(np.float32))

    return jax.tree_util.tree_map_with_path(draw, abstract_params(config))


def parameter_of(path, noise: np.ndarray) -> np.ndarray:
    """What a parameter is made of standard normal noise: of an ordinary size, and nowhere zero or one."""
    match path[-1].key:
        case "kernel":
            inputs = noise.shape[0] if noise.ndim == 4 and noise.shape[1:3] == (2, 2) else noise.shape[:-1]
            return noise / np.float32(np.sqrt(np.prod(inputs)))
        case "scale":
            return 1 + np.float32(0.1) * noise
        case "bias":
            return np.float32(0.1) * noise
        case "pos_embed" | "rel_pos_h" | "rel_pos_w":
            return np.float32(0.3) * noise
        case _:
            return noise


def faint(params: dict) -> dict:
    """The same parameters made so small that the epsilons of the norms decide about the answer.

    At ordinary sizes an epsilon of 1e-5 instead of 1e-6 changes less than the bar of parity.
    """

    def fade(path, leaf):
        # A norm takes out what its predecessor scales, so in the decoder the norms' own scales must be small.
        in_decoder = path[0].key == "mask_decoder"
        kept = path[1].key != "transformer" if in_decoder else path[-1].key == "scale"
        return leaf if kept else leaf * np.float32(0.01)

    return jax.tree_util.tree_map_with_path(fade, params)


def random_sam(config: SamConfig = SMALL, seed: int = 0, execution: Execution | None = None) -> Sam:
    params = jax.tree.map(jax.numpy.asarray, random_params(config, seed))
    return Sam(config, params, execution or Execution.for_backend())


def random_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs of colour with some noise, as uint8 RGB: something to segment at every scale."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    photo = random.uniform(-10, 10, (height, width, 3))
    for _ in range(8):
        (cx, cy), radius, colour = random.uniform(0, 1, 2), random.uniform(0.05, 0.4), random.uniform(0, 255, 3)
        # no exponential, which rounds differently from machine to machine
        photo += colour / (1 + ((x - cx) ** 2 + (y - cy) ** 2) / radius**2)[:, :, None] ** 2 / 2
    return np.clip(photo, 0, 255).astype(np.uint8)


# A model that has learnt something: `models/train_shapes.py` trains it on pictures of `shapes_photo`.
SHAPES = SamConfig(
    ViTConfig(width=48, depth=4, heads=3, global_blocks=(1, 3), image_size=(128, 128), patch_size=8, window_size=8),
    DecoderConfig(mlp_dim=128, iou_head_dim=64),
    width=64,
)


def shapes_sam() -> Sam:
    with np.load(Path(__file__).parent / "models" / "shapes.npz") as arrays:
        flat = {name: jax.numpy.asarray(array, np.float32) for name, array in arrays.items()}
    return Sam(SHAPES, unflatten_dict(flat, sep="/"))


def shapes_photo(height: int, width: int, seed: int, count: int = 5) -> tuple[np.ndarray, list[np.ndarray]]:
    """Discs and boxes of plain colours on a plain ground, with some noise: uint8 RGB, and each shape's visible mask.

    Their radii are 8 to 24 pixels, and their centres lie within the picture.
    """
    random = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width]
    photo = np.empty((height, width, 3))
    photo[:] = random.uniform(60, 190, 3)
    masks: list[np.ndarray] = []
    for _ in range(count):
        cx, cy, radius = random.uniform(0, width), random.uniform(0, height), random.uniform(8, 24)
        if random.rand() < 0.5:
            mask = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        else:
            mask = np.maximum(abs(x - cx), abs(y - cy) * random.uniform(0.6, 1.6)) < radius * 0.9
        colour = random.uniform(0, 255, 3)
        while abs(colour - photo[0, 0]).max() < 60:
            colour = random.uniform(0, 255, 3)
        photo[mask] = colour
        masks = [other & ~mask for other in masks] + [mask]
    photo += random.uniform(-8, 8, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8), [mask for mask in masks if mask.sum() > 20]
