"""Makes a state dict our parameters: every name is used once and every shape fits, or an error says what does not."""

import dataclasses
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from samjax.checkpoint import CheckpointError, LazyArray
from samjax.config import SamConfig
from samjax.mismatch import count_mismatches, explain_mismatch
from samjax.sam import abstract_params

from .huggingface import check_declared, declared_by
from .identify import identify
from .infer import candidates
from .mapping import FOURIER, TIED, Entry, entries, to_ours, torch_shape
from .state_dict import Opened, StateDict

_FLOATS = ("float32", "float16", "bfloat16")
_RECOGNISED = 0.5  # of the names; with fewer, a list of differences would be a list of everything


@dataclasses.dataclass(frozen=True)
class Matched:
    """A SAM, whatever file it comes from; `params` is flat ("a/b/c") and still in the file."""

    config: SamConfig
    params: dict[str, LazyArray]
    convention: str  # of the names: "meta", "huggingface" or "native"
    files: tuple[Path, ...] = ()


def match(opened: Opened, source: Path) -> Matched:
    """Infers the configuration and matches every name; `source` is named in errors.

    Raises `CheckpointError` where the state dict is not exactly a SAM.
    """
    tensors, convention = _recognise(opened.tensors, source)
    if convention == "huggingface":
        tensors = _untie(tensors, source)
    depth = sum(name.startswith("mask_decoder.iou_prediction_head.") for name in tensors) // 2
    known = entries(tensors, source=convention, iou_head_depth=depth)
    shapes = {known[name].meta if name in known else name: tensor.shape for name, tensor in tensors.items()}
    declared = declared_by(opened.declared, source)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    differences = []
    for config in candidates(shapes, declared):
        table = expected_entries(config)
        expected = _expected_shapes(config, table, convention)
        difference = explain_mismatch(expected, found)
        if not difference:
            check_declared(opened.declared, config, source)
            _check_dtypes(tensors, source)
            params = {entry.ours: to_ours(tensors[getattr(entry, convention)], entry.axes) for entry in table.values()}
            return Matched(config, params, convention, opened.files)
        differences.append((count_mismatches(expected, found), config, difference))
    _, config, difference = min(differences, key=lambda each: each[0])
    look = identify(tensors)
    hint = f" The names look like {look}, which is another architecture." if look else ""
    raise CheckpointError(f"{source} does not fit a {config.variant} at {config.image_size}.{hint}\n{difference}")


def expected_entries(config: SamConfig) -> dict[str, Entry]:
    """The rows of the key table for every parameter of a configuration, by our names."""
    ours = flatten_dict(abstract_params(config), sep="/")
    return entries(ours, source="ours", iou_head_depth=config.mask_decoder.iou_head_depth)


def _expected_shapes(config: SamConfig, table: dict[str, Entry], convention: str) -> dict[str, tuple[int, ...]]:
    leaves = flatten_dict(abstract_params(config), sep="/")
    return {getattr(entry, convention): torch_shape(leaves[name].shape, entry.axes) for name, entry in table.items()}


def _recognise(tensors: StateDict, source: Path) -> tuple[StateDict, str]:
    """The state dict without the prefix of a wrapper ("module.", "sam."), and whose names it uses."""
    best: tuple[int, StateDict, str] = (0, tensors, "meta")
    for convention, anchor in (("meta", "image_encoder."), ("huggingface", "vision_encoder.")):
        prefix = next((name[: name.find(anchor)] for name in tensors if anchor in name), "")
        stripped = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        if len(stripped) < len(tensors):
            continue  # two names became one
        depth = sum(name.startswith("mask_decoder.iou_prediction_head.") for name in stripped) // 2
        count = len(entries(stripped, source=convention, iou_head_depth=depth))
        best = max(best, (count, stripped, convention), key=lambda each: each[0])
    count, stripped, convention = best
    if count < _RECOGNISED * len(tensors):
        look = identify(stripped)
        names = ", ".join(repr(name[:60]) for name in list(tensors)[:5])
        raise CheckpointError(
            f"{source} is no SAM checkpoint: {count} of its {len(tensors)} names are known. "
            f"{f'It looks like {look}.' if look else 'Its architecture is unknown.'} Its first names are {names}."
        )
    return stripped, convention


def _untie(tensors: StateDict, source: Path) -> StateDict:
    """Hugging Face's Fourier matrix under its first name; where the file holds both names they must be equal."""
    if TIED not in tensors:
        return tensors
    tied = tensors[TIED]
    first = tensors.get(FOURIER, tied)
    if first.shape != tied.shape or not np.array_equal(first.read(), tied.read()):
        raise CheckpointError(f"{source}: {FOURIER} and {TIED} are one parameter, but the file holds two values for it")
    others = {name: tensor for name, tensor in tensors.items() if name not in (TIED, FOURIER)}
    return {FOURIER: first, **others}


def _check_dtypes(tensors: StateDict, source: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype.name not in _FLOATS:
            raise CheckpointError(f"{source}: {name} is {tensor.dtype.name}; expected one of {', '.join(_FLOATS)}")
