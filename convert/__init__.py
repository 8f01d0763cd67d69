"""Conversion of SAM checkpoints between Meta's, Hugging Face's and the native format; PyTorch is never needed.

Parameters stay in their files until they are written, one at a time, so a conversion needs little more memory than the
largest of them. A round trip is bit-exact: dtypes are kept, but for float64, and layouts only permuted.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import checkpoint
from samjax.atomic import replacing
from samjax.checkpoint import CheckpointError, Checksum, Description, LazyArray, lazy
from samjax.config import MaskThresholds, SamConfig
from samjax.nn.encoders import family_of
from samjax.types import Params

from .huggingface import write_configs
from .mapping import rename
from .matching import Matched, expected_entries, match
from .merging import average, check_alpha, check_same
from .provenance import provenance_of
from .safetensors_file import write_safetensors
from .state_dict import open_state_dict
from .thresholds import metadata, read_thresholds
from .torch_writer import write_torch
from .tuned_file import is_tuned, read_tuned, write_tuned

__all__ = [
    "CheckpointFormat",
    "apply_tuned",
    "convert",
    "describe",
    "is_tuned",
    "merge",
    "read",
    "read_thresholds",
    "read_tuned",
    "write",
    "write_tuned",
]

CheckpointFormat = Literal["native", "meta", "huggingface"]
PathLike = str | os.PathLike[str]


def read(
    path: PathLike, *, place: Callable[[str, np.ndarray], Any] | None = None, drop: Sequence[str] | str = ()
) -> tuple[SamConfig, Params]:
    """Reads a checkpoint of any format.

    Warns if float64 is rounded to float32, or if one of several state dicts is chosen.

    Args:
        path: a native folder, a Hugging Face folder or file, `.pth`, `.pt`, `.bin`, `.pkl`, `.npz` or `.safetensors`.
        place: called with (name, array) for each parameter as it is read; its result takes the array's place.
        drop: patterns (`loss.*`) for names of tensors to leave out, which are no part of the model.

    Returns:
        The configuration, and the parameters as nested dicts of numpy arrays (or of what `place` gives), in the dtypes
        of the file but for float64.

    Raises:
        CheckpointError: the file is missing, damaged, or not exactly a SAM, or `drop` is given for a native checkpoint;
            nothing in it is executed.
        OSError: the file cannot be opened.
    """
    matched = _open(Path(path), drop)
    _warn(Path(path), matched)
    leaves = {}
    for name, leaf in matched.params.items():
        array = leaf.read()
        leaves[name] = place(name, array) if place else array
    return matched.config, unflatten_dict(leaves, sep="/")


def write(
    path: PathLike,
    config: SamConfig,
    params: Params,
    *,
    to: CheckpointFormat | None = None,
    provenance: dict[str, Any] | None = None,
    thresholds: MaskThresholds | None = None,
    overwrite: bool = False,
) -> None:
    """Writes parameters in another program's format, or natively.

    Args:
        path: the file or folder to make.
        config: the configuration that `params` belongs to.
        params: nested dict of arrays (numpy, JAX or `LazyArray`).
        to: "meta" (`.safetensors` or else PyTorch's zip file, under Meta's names), "huggingface" (a folder) or "native"
            (a folder); None follows the ending of `path`: a file's is Meta's, no ending is native.
        provenance: kept in a native checkpoint; other formats have no place for it.
        thresholds: of mask generation, suited to the model; None: Meta's. Native checkpoints and `.safetensors` keep
            them; for other files a warning says that they are lost.
        overwrite: replace a file at `path`, or a folder that is empty or a checkpoint and nothing else.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is not set or would delete other things than a checkpoint.
        CheckpointError: the parameters do not fit `config`, the ending of `path` belongs to no format, or Hugging Face
            has no model of this shape; nothing is written.
        OSError: the file or folder cannot be written.
    """
    path = Path(path)
    to = to or _format_of(path)
    leaves = {name: lazy(array) for name, array in flatten_dict(params, sep="/").items()}
    checkpoint.check_names(config, {name: leaf.shape for name, leaf in leaves.items()})
    if to == "native":
        checkpoint.save(path, config, params, provenance, thresholds=thresholds, overwrite=overwrite)
        return
    named = rename(leaves, expected_entries(config), target=to)
    with replacing(path, overwrite=overwrite, foreign=checkpoint.foreign_to_checkpoints) as temporary:
        if to == "huggingface":
            temporary.mkdir()
            write_configs(temporary, config, _common_dtype(named))
            write_safetensors(temporary / "model.safetensors", named, metadata(thresholds))
        elif path.suffix == ".safetensors":
            write_safetensors(temporary, named, metadata(thresholds))
        else:
            write_torch(temporary, named)
            if thresholds not in (None, MaskThresholds()):
                warnings.warn(
                    f"{path}: PyTorch's file has no place for the model's own thresholds of mask generation; read from "
                    "there it has Meta's. A .safetensors file keeps them",
                    stacklevel=2,
                )


def convert(
    source: PathLike,
    destination: PathLike,
    to: CheckpointFormat | None = None,
    *,
    overwrite: bool = False,
    drop: Sequence[str] | str = (),
) -> Description:
    """Converts a checkpoint of any format to another; see `read` and `write` for the arguments.

    Returns:
        A description of the result, which also lists the skipped and dropped contents of the source.

    Raises:
        FileExistsError: as `write`; also if `destination` is the source or a folder that it lies in, even with
            `overwrite`.
        CheckpointError, OSError: as `read` and `write`.
    """
    source, destination = Path(source), Path(destination)
    _check_apart(source, destination)
    matched = _open(source, drop)
    _warn(source, matched)
    params = unflatten_dict(matched.params, sep="/")
    carried = {"provenance": provenance_of(source, matched), "thresholds": read_thresholds(source)}
    write(destination, matched.config, params, to=to, overwrite=overwrite, **carried)
    return dataclasses.replace(describe(destination), skipped=matched.skipped, dropped=matched.dropped)


def merge(
    base: PathLike,
    tuned: PathLike,
    destination: PathLike,
    alpha: float,
    to: CheckpointFormat | None = None,
    *,
    overwrite: bool = False,
) -> Description:
    """Averages the weights of two models of one network, of any formats: (1 - alpha) · base + alpha · tuned.

    Between a model and what was tuned from it, the average keeps most of both abilities (WiSE-FT, arXiv 2109.01903).
    It is computed in float32, one parameter at a time; one that has the same dtype in both is written in that, others
    in float32. Thresholds of mask generation are those of `tuned` or, if it carries none, of `base`. `to` and
    `overwrite` are those of `write`.

    Args:
        base: the model before tuning.
        tuned: the model after, or a file of what was tuned (`write_tuned`), which is applied to the base.
        alpha: the share of `tuned`, 0 to 1.

    Returns:
        A description of the result; a native one keeps `alpha` and the provenance of both.

    Raises:
        ValueError: `alpha` is not between 0 and 1.
        FileExistsError: as `convert`, for either source.
        CheckpointError: the two are not of one network, which their fields that differ show; or as `read`, `write` and
            `apply_tuned`.
        OSError: as `read` and `write`.
    """
    check_alpha(alpha)
    destination, sources = Path(destination), {"base": Path(base), "tuned": Path(tuned)}
    for source in sources.values():
        _check_apart(source, destination)
    opened = {"base": _open(sources["base"], ())}
    opened["tuned"] = (
        _open_tuned(sources["base"], sources["tuned"]) if is_tuned(sources["tuned"]) else _open(sources["tuned"], ())
    )
    for role, source in sources.items():
        _warn(source, opened[role])
    first, second = opened["base"], opened["tuned"]
    check_same(first.config, second.config, (str(base), str(tuned)))
    params = unflatten_dict(average(first.params, second.params, alpha), sep="/")
    provenance: dict[str, Any] = {"alpha": alpha}
    provenance |= {role: provenance_of(source, opened[role]) for role, source in sources.items()}
    thresholds = [read_thresholds(source) for source in (sources["tuned"], sources["base"])]
    carried = {"provenance": provenance, "thresholds": thresholds[thresholds[0] == MaskThresholds()]}
    write(destination, first.config, params, to=to, overwrite=overwrite, **carried)
    return describe(destination)


def apply_tuned(
    base: PathLike, tuned: PathLike, *, name: str | None = None, drop: Sequence[str] | str = ()
) -> tuple[SamConfig, Params, MaskThresholds]:
    """Reads a base, in any format, and applies what was tuned of it.

    Args:
        base: a checkpoint.
        tuned: a file that `write_tuned` has written.
        name: of the base, in errors; by default its path.
        drop: as `read`, of the base.

    Returns:
        The tuned network's configuration, its parameters in float32 on the host, and its thresholds.

    Raises:
        CheckpointError: what was tuned belongs to another base; or as `read` and `read_tuned`.
    """
    change = read_tuned(Path(tuned))
    change.check_base(name or str(base), describe(base, drop=drop).checksum)
    config, params = read(base, drop=drop)
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    params = unflatten_dict({n: checkpoint.cast(n, leaf, np.float32) for n, leaf in leaves.items()}, sep="/")
    if config.image_size != change.config.image_size:
        config = config.with_image_size(change.config.image_size)
        resample = family_of(config.image_encoder).resample
        params = {**params, "image_encoder": resample(params["image_encoder"], config.image_encoder)}
    return change.config, change.apply(params), change.thresholds


def describe(path: PathLike, *, drop: Sequence[str] | str = ()) -> Description:
    """Describes a checkpoint of any format.

    The checksum is of the parameters, not of the file: the same parameters have the same checksum in every format.

    Raises:
        CheckpointError, OSError: as `read`.
    """
    path = Path(path)
    if checkpoint.is_native(path) and not drop:
        return checkpoint.describe(path)
    matched = _open(path, drop)
    checksum = Checksum()
    for name, leaf in matched.params.items():
        checksum.add(name, leaf.read())
    leaves = matched.params.values()
    return Description(
        format=matched.convention,
        config=matched.config,
        parameters=sum(leaf.size for leaf in leaves),
        dtypes=tuple(sorted({leaf.dtype.name for leaf in leaves})),
        provenance=provenance_of(path, matched),
        checksum=checksum.hexdigest(),
        place=matched.place,
        skipped=matched.skipped,
        dropped=matched.dropped,
        warnings=matched.warnings,
        thresholds=read_thresholds(path),
    )


def _open(path: Path, drop: Sequence[str] | str) -> Matched:
    """Opens a checkpoint of any format, whose parameters stay in their files. Raises as `read`."""
    if checkpoint.is_native(path):
        if drop:
            raise CheckpointError(f"{path} is a native checkpoint and holds the model alone: there is nothing to drop")
        config, params = checkpoint.open_native(path)
        return Matched(config, params, "native")
    if is_tuned(path):
        raise CheckpointError(
            f"{path} holds only what was tuned of a network, and needs its base: samjax.load(BASE, tuned=FILE) or "
            "--checkpoint BASE --tuned FILE; `samjax info FILE` says which, `samjax merge BASE FILE OUT --alpha 1` "
            "writes both as one"
        )
    return match(open_state_dict(path), path, [drop] if isinstance(drop, str) else drop)


def _open_tuned(base: Path, path: Path) -> Matched:
    """Opens a base with what was tuned of it as one checkpoint. Raises as `apply_tuned`."""
    config, params, _ = apply_tuned(base, path)
    leaves = {name: lazy(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    return Matched(config, leaves, "tuned", files=(path,))


def _warn(path: Path, matched: Matched) -> None:
    for message in matched.warnings:
        warnings.warn(f"{path}: {message}", stacklevel=3)


def _check_apart(source: Path, destination: Path) -> None:
    """Raises FileExistsError if writing `destination` would delete `source`, or the link that leads to it."""
    if not destination.exists() or not source.exists():
        return
    places = source.resolve(), source.parent.resolve() / source.name
    if any(destination.samefile(place) for place in places):
        raise FileExistsError(f"{destination} is the source itself; choose another destination")
    if any(destination.samefile(parent) for place in places for parent in place.parents):
        raise FileExistsError(f"{destination} holds the source {source}; choose another destination")


def _format_of(path: Path) -> CheckpointFormat:
    """Returns the format of the ending of `path`. Raises `CheckpointError` if no format has this ending."""
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        return "meta"
    if path.suffix:
        raise CheckpointError(
            f"{path}: no format has the ending {path.suffix!r}; say which one (native, meta, huggingface)"
        )
    return "native"


def _common_dtype(tensors: dict[str, LazyArray]) -> str:
    """Chooses the one dtype that Hugging Face declares; of several in a file, the widest loses nothing."""
    return max((leaf.dtype for leaf in tensors.values()), key=lambda dtype: dtype.itemsize).name
