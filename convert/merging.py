"""Averages of two models' parameters, such as a base and what was tuned from it (WiSE-FT, arXiv 2109.01903)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from samjax.checkpoint import CheckpointError, LazyArray
from samjax.config import SamConfig


def check_same(base: SamConfig, tuned: SamConfig, names: tuple[str, str]) -> None:
    """Raises CheckpointError, listing the fields that differ, if two networks are not the same; `names` are theirs."""
    ours, theirs = _fields(dataclasses.asdict(base)), _fields(dataclasses.asdict(tuned))
    differing = [
        f"  {field}: {ours.get(field, 'none')} in {names[0]}, {theirs.get(field, 'none')} in {names[1]}"
        for field in ours | theirs
        if ours.get(field) != theirs.get(field)
    ]
    if differing:
        raise CheckpointError(
            "only the weights of one network can be averaged, and these are two:\n" + "\n".join(differing)
        )


def check_alpha(alpha: float) -> None:
    """Raises ValueError if a share is not between 0 and 1."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the share of the tuned weights, between 0 and 1, got {alpha}")


def average(base: Mapping[str, LazyArray], tuned: Mapping[str, LazyArray], alpha: float) -> dict[str, LazyArray]:
    """(1 - alpha) · base + alpha · tuned, computed in float32 when a parameter is read, and of one at a time.

    A parameter that has the same dtype in both keeps it; otherwise it is float32. Numbers that are equal in both, as
    those that were frozen are, stay as they are bit for bit, and so do all at an alpha of 0 or 1.
    """
    return {name: _average(leaf, tuned[name], alpha) for name, leaf in base.items()}


def _average(base: LazyArray, tuned: LazyArray, alpha: float) -> LazyArray:
    if alpha in (0, 1):
        return tuned if alpha else base
    dtype = base.dtype if base.dtype == tuned.dtype else np.dtype(np.float32)

    def read() -> np.ndarray:
        first, second = (leaf.read().astype(np.float32, copy=False) for leaf in (base, tuned))
        mixed = np.float32(1 - alpha) * first + np.float32(alpha) * second
        return np.where(first == second, first, mixed).astype(dtype, copy=False)

    return LazyArray(base.shape, dtype, read)


def _fields(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as "image_encoder.depth" and so on."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
