"""Training on windows of the model's input (`model.window`).

A window has the positions of its place in the whole, so what a model from scratch learns on small crops, at a fraction
of the cost, holds at full size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Key

from samjax.config import SamConfig

from .config import TrainConfig


def check_window(side: int | None, sam: SamConfig) -> None:
    """Raises ValueError if the windows that training sees would cut the encoder's attention windows."""
    stride = sam.image_encoder.alignment
    if side is not None and (side < stride or side % stride or side > min(sam.image_size)):
        raise ValueError(
            f"model.window must be a multiple of {stride} (patch times attention window) and at most the model's input "
            f"{sam.image_size}, got {side}"
        )


def seen_in_training(config: TrainConfig, sam: SamConfig) -> SamConfig:
    """The network for the part of its input that training sees."""
    return sam if config.model.window is None else sam.with_image_size(config.model.window)


def window_origins(sam: SamConfig, side: int | None, keys: Key[Array, " B"]) -> Int32[Array, "B 2"] | None:
    """The upper left corners of windows of `side` pixels in the model's input, (x, y) in pixels; None without windows.

    They are uniform over the places that are aligned with the encoder's attention windows.
    """
    if side is None:
        return None
    stride = sam.image_encoder.alignment
    height, width = sam.image_size
    places = jnp.array([(width - side) // stride + 1, (height - side) // stride + 1], jnp.int32)
    return stride * jax.vmap(lambda key: jax.random.randint(key, (2,), 0, places, jnp.int32))(keys)
