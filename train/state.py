"""What a run is at a step: everything that the next step depends on, apart from the data."""

from typing import Any

import numpy as np
from jaxtyping import Array, Int32, UInt32

from samjax.types import pytree


@pytree
class TrainState:
    """All leaves are arrays; parameters, their average and the optimiser's moments are sharded alike."""

    step: Int32[Array | np.ndarray, ""]  # updates done
    params: Any  # as `samjax.model.abstract_params` names them, float32
    opt_state: Any  # optax's
    ema: Any  # parameters averaged over steps, or None
    key: UInt32[Array | np.ndarray, "2"]  # raw data of the key that all randomness of the run comes from
