"""SAM-PARSER: the singular values of kernels are trained, their singular vectors stay (arXiv 2308.14604)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.ops.singular_values import decompose
from samjax.tuned import add_shifts
from samjax.types import Params

from ..config import TrainConfig
from .freezing import check_patterns, parameter_names
from .named import named

NECK = r"^image_encoder/neck/\d/kernel$"  # the paper's two convolutions


@dataclasses.dataclass(frozen=True)
class SingularValues:
    """Trains shifts of singular values: W + U diag(σ - σ₀) V.

    What is trained is the shift σ - σ₀ and not σ: it starts at zero, so that the network is at first bit for bit what
    it was, and weight decay pulls it back to there and not to a kernel of zeros. The vectors are decomposed once, at
    the start, and kept among the frozen parameters.
    """

    kernels: tuple[str, ...]

    def split(self, params: Params) -> tuple[Params, Params]:
        """(Shifts, all parameters and the singular vectors)."""
        flat: dict[str, Any] = dict(flatten_dict(params, sep="/"))
        trained = {}
        for kernel in self.kernels:
            beside = kernel.removesuffix("kernel") + "svd"
            u, values, v = decompose(flat[kernel])
            trained[f"{beside}/shift"] = jnp.zeros_like(values)
            flat |= {f"{beside}/u": u, f"{beside}/v": v}
        return unflatten_dict(trained, sep="/"), unflatten_dict(flat, sep="/")

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The network's parameters: the shifts are in its kernels."""
        leaves = {**flatten_dict(frozen, sep="/"), **flatten_dict(trained, sep="/")}
        return unflatten_dict(add_shifts(leaves), sep="/")


def singular_values(config: TrainConfig, sam: SamConfig) -> SingularValues:
    """The kernels of the neck and those that `tune.matrices` names. Raises ValueError if a pattern fits no kernel."""
    kernels = [name for name in parameter_names(abstract_params(sam)) if name.endswith("/kernel")]
    check_patterns("tune.matrices", config.tune.matrices, kernels)
    chosen = named(kernels, NECK, *config.tune.matrices).names
    if not chosen:
        raise ValueError("tune.mode parser: this network has no convolutions in a neck; name kernels in tune.matrices")
    return SingularValues(tuple(name for name in kernels if name in chosen))
