"""Matches a state dict with our parameters: each name is used once and each shape fits, or the error says why."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from samjax.checkpoint import CheckpointError, LazyArray
from samjax.config import SamConfig
from samjax.mismatch import Shapes, count_mismatches, explain_mismatch
from samjax.model import abstract_params
from samjax.nn.encoders import family_of

from .extras import drop_constants, drop_counters, drop_matching, suggest_patterns, unused_patterns
from .huggingface import check_declared, declared_by
from .identify import identify
from .infer import candidates
from .locate import Located, describe_kind
from .mapping import FOURIER, TIED, KeyEntry, find_entries, to_ours, torch_shape
from .state_dict import Opened, StateDict

_FLOATS = ("float32", "float16", "bfloat16")
# Components that torch.compile, FSDP, activation checkpointing, accelerate and DistributedDataParallel put into names.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "module")
_MAX_PREFIXES = 10
_ESSENTIAL = {"image_encoder.pos_embed", "mask_decoder.iou_token.weight", "prompt_encoder.no_mask_embed.weight"}
_RECOGNISED = 0.5  # of the names; with fewer, a list of differences would be a list of everything


@dataclasses.dataclass(frozen=True)
class Matched:
    """A SAM from a file of any format; `params` is flat ("a/b/c") and still in the file."""

    config: SamConfig
    params: dict[str, LazyArray]
    convention: str  # of the names: "meta", "huggingface" or "native"; "tuned" where that was applied to its base
    files: tuple[Path, ...] = ()
    place: str = ""  # of the state dict in a saved object
    skipped: tuple[str, ...] = ()  # everything beside it, as "name (class)"
    dropped: tuple[str, ...] = ()  # names of tensors that are no part of the model
    warnings: tuple[str, ...] = ()


def match(opened: Opened, source: Path, drop: Sequence[str] = ()) -> Matched:
    """Infers the configuration and matches every name.

    Args:
        opened: the state dict.
        source: named in errors.
        drop: patterns with `*`, `?` and `[...]` for names of tensors to leave out.

    Raises:
        CheckpointError: the state dict is not exactly a SAM; the message lists missing, extra and misshaped names. Or
            `pixel_mean`, `pixel_std`, config.json or a second copy of a parameter contradicts the model, or a parameter
            is not float32, float16, bfloat16 or float64. When a parameter is read, also if the file is damaged, or a
            float64 too large for float32.
    """
    located = opened.located
    others = located.others if located else {}
    tensors, dropped = drop_matching(opened.tensors, drop)
    tensors, others, convention = _recognise(tensors, others)
    names = (*opened.tensors, *tensors)
    tensors, more = drop_matching(tensors, drop)
    tensors, constants = drop_constants(tensors, source)
    if convention == "huggingface":
        tensors = _untie(tensors, source)
    known = _find_known(tensors, convention)
    tensors, counters = drop_counters(tensors, known)
    shapes = {known[name].meta if name in known else name: tensor.shape for name, tensor in tensors.items()}
    if len(known) < _RECOGNISED * len(tensors) and _ESSENTIAL - {entry.meta for entry in known.values()}:
        raise _unrecognised(tensors, known, source)
    declared = declared_by(opened.declared, source)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    differences = []
    for config in candidates(shapes, declared):
        table = expected_entries(config)
        expected = _expected_shapes(config, table, convention)
        difference = explain_mismatch(expected, found)
        if not difference:
            check_declared(opened.declared, config, source)
            tensors, warnings = to_known_dtypes(tensors, source)
            params = {entry.ours: to_ours(tensors[entry.name_in(convention)], entry.axes) for entry in table.values()}
            return Matched(
                config,
                params,
                convention,
                opened.files,
                located.place if located else "",
                located.skipped if located else (),
                (*dropped, *more, *constants, *counters),
                (*_choice(located), *unused_patterns(drop, names), *warnings),
            )
        differences.append((count_mismatches(expected, found), config, expected))
    _, config, expected = min(differences, key=lambda each: each[0])
    raise _refusal(source, config, expected, tensors, others, known, (*dropped, *more))


def _choice(located: Located | None) -> list[str]:
    """Warns which of several state dicts is read."""
    if not located or not located.rivals:
        return []
    rivals = ", ".join(located.rivals[:5])
    return [f"several state dicts are there: {located.place or 'the whole file'} is read, {rivals} not"]


def _refusal(
    source: Path,
    config: SamConfig,
    expected: Shapes,
    tensors: StateDict,
    others: dict[str, Any],
    known: Collection[str],
    dropped: Collection[str],
) -> CheckpointError:
    """Explains why the tensors are not a SAM of the configuration that they resemble most."""
    found = {name: tensor.shape for name, tensor in tensors.items()}
    look = identify(tensors)
    for name, value in others.items():
        if name in expected:
            return CheckpointError(f"{source}: {name} is a {describe_kind(value)}, expected a tensor of numbers")
    complete = all(expected[name] == found.get(name) for name in expected)
    if len(known) < _RECOGNISED * len(tensors) and not complete:
        return _unrecognised(tensors, known, source)
    needed = [name for name in expected if name in dropped]
    if complete:
        problem = f"{source} holds a complete {config.variant} at {config.image_size}, and other tensors."
    else:
        problem = f"{source} does not fit a {config.variant} at {config.image_size}."
    if needed:
        problem += f" It needs {needed[0]}, which was to be dropped."
    if look:
        problem += f" The names look like {look}, which is another architecture."
    if complete:
        extra = [name for name in found if name not in expected]
        problem += f" If they are no part of the model, drop them: {suggest_patterns(extra)}"
    return CheckpointError(f"{problem}\n{explain_mismatch(expected, found)}")


def expected_entries(config: SamConfig) -> dict[str, KeyEntry]:
    """Returns the entry of the key table for every parameter of a configuration, by our names ("a/b/c").

    Raises:
        CheckpointError: the table has no names for some, as of an encoder that only samjax has.
    """
    ours: dict[str, Any] = flatten_dict(abstract_params(config), sep="/")
    depth, family = config.mask_decoder.iou_head_depth, family_of(config.image_encoder)
    found = find_entries(ours, source="ours", iou_head_depth=depth, family=family)
    if missing := [name for name in ours if name not in found]:
        raise CheckpointError(f"other programs have no name for {missing[0]} and {len(missing) - 1} more parameters")
    return found


def _unrecognised(tensors: StateDict, known: Collection[str], source: Path) -> CheckpointError:
    look = identify(tensors)
    names = ", ".join(repr(name[:60]) for name in list(tensors)[:5])
    return CheckpointError(
        f"{source} is no SAM checkpoint: {len(known)} of its {len(tensors)} names are known. "
        f"{f'It looks like {look}.' if look else 'Its architecture is unknown.'} Its first names are {names}."
    )


def _expected_shapes(config: SamConfig, table: dict[str, KeyEntry], convention: str) -> dict[str, tuple[int, ...]]:
    leaves: dict[str, Any] = flatten_dict(abstract_params(config), sep="/")
    return {entry.name_in(convention): torch_shape(leaves[name].shape, entry.axes) for name, entry in table.items()}


def _recognise(tensors: StateDict, others: dict[str, Any]) -> tuple[StateDict, dict[str, Any], str]:
    """Removes the prefix of a wrapper ("module.", "sam.") from the names, and tells whose convention they follow.

    Of several prefixes ("teacher.", "student.") the one with the most names of a SAM is removed.
    """
    best: tuple[int, StateDict, dict[str, Any], str] = (-1, tensors, others, "meta")
    unwrapped = _shorten(tensors, "")
    for convention, anchor in (("meta", "image_encoder."), ("huggingface", "vision_encoder.")):
        prefixes = dict.fromkeys(name[: name.find(anchor)] for name in unwrapped if anchor in name) or {"": None}
        for prefix in sorted(prefixes, key=len)[:_MAX_PREFIXES]:
            shortened = _shorten(tensors, prefix)
            count = len(_find_known(shortened, convention))
            best = max(best, (count, shortened, _shorten(others, prefix), convention), key=lambda each: each[0])
    return best[1:]


def _find_known(tensors: StateDict, convention: str) -> dict[str, KeyEntry]:
    depth = sum(name.startswith("mask_decoder.iou_prediction_head.") for name in tensors) // 2  # weights and biases
    return find_entries(tensors, source=convention, iou_head_depth=depth)


def _shorten(items: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Removes wrappers and a prefix from the names; an item whose new name belongs to another keeps its old one."""
    result: dict[str, Any] = {}
    for name, item in items.items():
        new = ".".join(part for part in name.split(".") if part not in _WRAPPERS).removeprefix(prefix)
        result[name if new in result or (new != name and new in items) else new] = item
    return result


def _untie(tensors: StateDict, source: Path) -> StateDict:
    """Keeps Hugging Face's Fourier matrix under its first name; if the file holds both, they must be equal.

    Raises `CheckpointError` if they differ.
    """
    if TIED not in tensors:
        return tensors
    tied = tensors[TIED]
    first = tensors.get(FOURIER, tied)
    if first.shape != tied.shape or not np.array_equal(first.read(), tied.read()):
        raise CheckpointError(f"{source}: {FOURIER} and {TIED} are one parameter, but the file holds two values for it")
    others = {name: tensor for name, tensor in tensors.items() if name not in (TIED, FOURIER)}
    return {FOURIER: first, **others}


def to_known_dtypes(tensors: StateDict, source: Path) -> tuple[StateDict, list[str]]:
    """Rounds tensors in float64 to float32 when they are read, and warns of it.

    Raises `CheckpointError` for tensors of other types than `_FLOATS` and float64.
    """
    for name, tensor in tensors.items():
        if tensor.dtype.name not in (*_FLOATS, "float64"):
            kind = "of an unknown type" if tensor.dtype.kind == "V" else tensor.dtype.name
            raise CheckpointError(
                f"{source}: {name} is {kind}; expected {', '.join(_FLOATS)} or float64, to be rounded"
            )
    wide = {name: _rounded(name, tensor, source) for name, tensor in tensors.items() if tensor.dtype.name == "float64"}
    if not wide:
        return tensors, []
    return tensors | wide, [f"{len(wide)} of {len(tensors)} parameters are float64 and are rounded to float32"]


def _rounded(name: str, tensor: LazyArray, source: Path) -> LazyArray:
    """Rounds a tensor to float32 when it is read, which raises `CheckpointError` if a number is too large."""

    def read() -> np.ndarray:
        wide = tensor.read()
        with np.errstate(over="ignore"):
            array = wide.astype(np.float32)
        if not np.array_equal(np.isfinite(array), np.isfinite(wide)):
            raise CheckpointError(f"{source}: {name} holds numbers that are too large for float32")
        return array

    return LazyArray(tensor.shape, np.dtype(np.float32), read)
