"""Tensors beside a complete SAM: dropped on request, or as Meta's own constants or PyTorch's counters."""

import fnmatch
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from samjax import transforms
from samjax.checkpoint import CheckpointError
from samjax.mismatch import shortened

from .locate import PARTS
from .state_dict import StateDict

_CONSTANTS = {"pixel_mean": transforms.PIXEL_MEAN, "pixel_std": transforms.PIXEL_STD}  # of photos in 0..255
_TOLERANCES = {"float16": 1e-3, "bfloat16": 1e-2}  # relative; 1e-5 for other types
_HEADS = (*PARTS, "vision_encoder")  # the last is Hugging Face's name
_MAX_SUGGESTED = 5
_COUNTER, _MEAN = ".num_batches_tracked", ".running_mean"  # of PyTorch's batch norms


def drop_matching(tensors: StateDict, patterns: Sequence[str]) -> tuple[StateDict, tuple[str, ...]]:
    """Splits off the tensors whose names match a pattern: returns the others, and the names of those dropped."""
    kept = {name: tensor for name, tensor in tensors.items() if not _matches(name, patterns)}
    return kept, tuple(name for name in tensors if name not in kept)


def unused_patterns(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Returns a warning for each pattern that matches no name: it may be misspelt."""
    names = list(names)
    unused = [pattern for pattern in patterns if not any(_matches(name, [pattern]) for name in names)]
    return [f"no tensor has a name like {pattern!r}, which was to be dropped" for pattern in unused]


def suggest_patterns(names: Iterable[str]) -> str:
    """Writes the options that would drop these names, for the command line and for Python."""
    patterns = list(dict.fromkeys(map(_pattern, names)))
    shown = [shortened(pattern) for pattern in patterns[:_MAX_SUGGESTED]]
    more = " …" if len(patterns) > len(shown) else ""
    options = " ".join(f"--drop '{pattern}'" for pattern in shown)
    return f"{options}{more} (in Python, drop={shown}{more})"


def drop_constants(tensors: StateDict, source: Path) -> tuple[StateDict, tuple[str, ...]]:
    """Drops `pixel_mean` and `pixel_std`, three numbers each, which are constants here.

    Returns:
        The other tensors, and the dropped names with the reason.

    Raises:
        CheckpointError: their values are not Meta's, for photos in 0..255 or in 0..1: the model was trained on pixels
            that were normalised in another way.
    """
    present = {name: tensors[name] for name in _CONSTANTS if name in tensors}
    for scale in (1, 255):
        if all(
            tensor.size == 3
            and np.allclose(
                np.asarray(tensor.read(), np.float64).reshape(3) * scale,
                _CONSTANTS[name],
                rtol=_TOLERANCES.get(tensor.dtype.name, 1e-5),
                atol=0,
            )
            for name, tensor in present.items()
        ):
            kept = {name: tensor for name, tensor in tensors.items() if name not in present}
            return kept, tuple(f"{name} (Meta's own values)" for name in present)
    found = ", ".join(
        f"{name} {_as_list(tensor.read()) if tensor.size <= 3 else f'of shape {tensor.shape}'}"
        for name, tensor in present.items()
    )
    expected = ", ".join(f"{name} {_as_list(_CONSTANTS[name])}" for name in present)
    raise CheckpointError(
        f"{source} holds {found}, but samjax normalises photos as Meta does, with {expected}: the masks of a model "
        f"that was trained otherwise would be wrong. If it was not, drop them: {suggest_patterns(present)}"
    )


def drop_counters(tensors: StateDict, known: Collection[str]) -> tuple[StateDict, tuple[str, ...]]:
    """Drops how many batches each batch norm has seen, which matters in training only.

    Args:
        tensors: the state dict.
        known: names of parameters of the model, those of its batch norms (`running_mean`) among them.

    Returns:
        The other tensors, and the dropped names with the reason.
    """
    counters = [name for name in tensors if name.endswith(_COUNTER) and name.replace(_COUNTER, _MEAN) in known]
    kept = {name: tensor for name, tensor in tensors.items() if name not in counters}
    return kept, tuple(f"{name} (batches that were counted)" for name in counters)


def _as_list(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values.reshape(-1)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _pattern(name: str) -> str:
    head, dot, _ = name.partition(".")
    return f"{head}.*" if dot and head not in _HEADS else name
