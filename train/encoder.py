"""The image encoder in a training step."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int32, Key

from samjax.config import SamConfig
from samjax.execution import Execution
from samjax.model import encode, encode_from, tap_names
from samjax.types import Features, Params, Perturbation

from .batch import Batch, pixels_of
from .cached.point import IMAGE
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
    features = features_of(sam, params, batch, execution, Perturbation(weights, origin))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), features)


def features_of(
    sam: SamConfig, params: Params, batch: Batch, execution: Execution, perturbation: Perturbation | None = None
) -> Features:
    """The features of a batch's photos, in the compute dtype: of its pixels, or from what is stored of them on."""
    stored = batch.stored
    if stored is None:
        return encode(sam, params, pixels_of(batch), execution, perturbation=perturbation)
    at_hand = {name: jnp.asarray(array).astype(execution.dtype) for name, array in stored.items()}
    taps = {name: array for name, array in at_hand.items() if name in sam.decoder_taps}
    if IMAGE in at_hand:
        return Features(at_hand[IMAGE], taps)
    after = max(at_hand, key=tap_names(sam).index)
    rest = encode_from(sam, params, at_hand[after], execution, after=after, perturbation=perturbation)
    return Features(rest.image, {**taps, **rest.taps})
