"""The image encoder in a training step."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int32, Key

from samjax.config import SamConfig
from samjax.model import encode
from samjax.types import Features, Params, Perturbation

from .batch import Batch, pixels_of
from .config import TrainConfig
from .execution import encoder_execution
from .regularise import drop_path_weights


def batch_features(
    config: TrainConfig,
    sam: SamConfig,
    mesh: Mesh,
    params: Params,
    batch: Batch,
    keys: Key[Array, " B"],
    origin: Int32[Array, "B 2"] | None,
) -> Features:
    """The features of a batch's photos, and the taps that the decoder takes, all in float32, in which the gradients of
    hundreds of passes are summed.

    Args:
        config: the recipe.
        sam: the network.
        mesh: what it is trained on.
        params: its parameters.
        batch: the photos.
        keys: of each photo, for the branches that are dropped.
        origin: where in the model's input the photos are, (x, y) in pixels, if they are windows of it.
    """
    weights = drop_path_weights(sam, config.run.drop_path, keys)
    execution = encoder_execution(config, mesh)
    features = encode(sam, params, pixels_of(batch), execution, perturbation=Perturbation(weights, origin))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), features)
