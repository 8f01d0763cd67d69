"""A `.safetensors` file of what was tuned of a network: its parameters, and beside them, in the header, all else.

The header's text `samjax_tuned` is JSON: format_version, base (name, checksum, config), config, tune, scale,
provenance, and a checksum of all of these, the parameters and the thresholds, which stand where those of a checkpoint
stand (`thresholds`).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from samjax.atomic import replacing
from samjax.checkpoint import CheckpointError, Checksum, LazyArray, from_json
from samjax.config import MaskThresholds, SamConfig, written_fields
from samjax.tuned import Base, Tuned

from .safetensors_file import is_safetensors, read_metadata, read_safetensors, write_safetensors
from .thresholds import metadata, read_thresholds

KEY = "samjax_tuned"
FORMAT_VERSION = 1


def write_tuned(path: Path, tuned: Tuned, *, overwrite: bool = False) -> None:
    """Writes the file, whole or not at all.

    Raises:
        FileExistsError: it exists, and `overwrite` is not set.
        CheckpointError: its name does not end in .safetensors.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: what was tuned is written as .safetensors; choose a name that ends so")
    fields = {"format_version": FORMAT_VERSION, "base": written_fields(tuned.base)}
    fields |= {"config": written_fields(tuned.config), "tune": tuned.tune, "scale": tuned.scale}
    fields |= {"provenance": tuned.provenance}
    fields["checksum"] = _checksum(fields, tuned.thresholds, tuned.leaves)
    header = {**metadata(tuned.thresholds), KEY: json.dumps(fields)}
    with replacing(path, overwrite=overwrite) as temporary:
        write_safetensors(temporary, dict(tuned.leaves), header)


def is_tuned(path: Path) -> bool:
    """True for a file of what was tuned, which is no checkpoint by itself."""
    return path.is_file() and is_safetensors(path) and KEY in read_metadata(path)


def read_tuned(path: Path) -> Tuned:
    """Reads the file; all that is in it is compared with its checksum.

    Raises:
        CheckpointError: there is no such file, it is another kind of file or of a newer samjax, or it is damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; `samjax export RUN FILE --tuned` writes what a run has tuned")
    if not is_safetensors(path) or (text := read_metadata(path).get(KEY)) is None:
        raise CheckpointError(
            f"{path} does not hold what `samjax export RUN FILE --tuned` writes; a checkpoint of a whole model is "
            "loaded by itself"
        )
    try:
        fields: dict[str, Any] = json.loads(text)
        if (version := fields["format_version"]) != FORMAT_VERSION:
            raise CheckpointError(f"{path}: format version {version!r}; this samjax reads {FORMAT_VERSION}")
        leaves, thresholds, checksum = read_safetensors(path), read_thresholds(path), fields.pop("checksum")
        if checksum != _checksum(fields, thresholds, leaves):
            raise CheckpointError(f"{path} is damaged: its checksum does not fit; export it again")
        return _from_fields(fields, leaves, thresholds)
    except CheckpointError as error:
        raise error if str(path) in str(error) else CheckpointError(f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}); export it again") from None


def _from_fields(fields: dict[str, Any], leaves: Mapping[str, LazyArray], thresholds: MaskThresholds) -> Tuned:
    """Takes a header's fields if they have the types that were written. Raises TypeError, ValueError or KeyError."""
    base, config = from_json(Base, fields["base"]), from_json(SamConfig, fields["config"])
    tune, scale, provenance = fields["tune"], fields["scale"], fields["provenance"]
    named = isinstance(base.name, str) and isinstance(base.checksum, str) and isinstance(provenance, dict)
    if not named or not isinstance(tune, dict) or not isinstance(tune["mode"], str):
        raise TypeError("base, tune or provenance are not of their kind")
    if type(scale) not in (int, float) or not math.isfinite(scale):
        raise ValueError(f"scale is a finite number, got {scale!r}")
    if other := [name for name, leaf in leaves.items() if leaf.dtype != np.float32]:
        raise TypeError(f"parameters are float32, {other[0]} is {leaves[other[0]].dtype}")
    return Tuned(base, config, tune, float(scale), leaves, thresholds, provenance)


def _checksum(fields: dict[str, Any], thresholds: MaskThresholds, leaves: Mapping[str, LazyArray]) -> str:
    """sha256 of a header's fields, as JSON with sorted keys, and of the checksum of the parameters."""
    checksum = Checksum()
    for name, leaf in leaves.items():
        checksum.add(name, leaf.read())
    header = json.dumps([fields, [float(number) for number in dataclasses.astuple(thresholds)]], sort_keys=True)
    return hashlib.sha256(f"{header}\n{checksum.hexdigest()}".encode()).hexdigest()
