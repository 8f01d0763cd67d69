"""What was tuned of a network as one `.safetensors` file: its parameters, and beside them, in the header, all else.

The header's text `samjax_tuned` is JSON: format_version, base (name, checksum, config), config, tune, scale, checksum
of the parameters, provenance. Thresholds stand where those of a checkpoint stand (`thresholds`).
"""

import json
from pathlib import Path
from typing import Any

from samjax.atomic import replacing
from samjax.checkpoint import CheckpointError, Checksum, from_json
from samjax.config import SamConfig, written_fields
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
    fields = {name: getattr(tuned, name) for name in ("tune", "scale", "checksum", "provenance")}
    fields |= {"base": written_fields(tuned.base), "config": written_fields(tuned.config)}
    header = {**metadata(tuned.thresholds), KEY: json.dumps({"format_version": FORMAT_VERSION, **fields})}
    with replacing(path, overwrite=overwrite) as temporary:
        write_safetensors(temporary, dict(tuned.leaves), header)


def is_tuned(path: Path) -> bool:
    """True for a file of what was tuned, which is no checkpoint by itself."""
    return path.is_file() and is_safetensors(path) and KEY in read_metadata(path)


def read_tuned(path: Path) -> Tuned:
    """Reads the file; its parameters are compared with their checksum.

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
    leaves, checksum = read_safetensors(path), Checksum()
    for name, leaf in leaves.items():
        checksum.add(name, leaf.read())
    try:
        fields: dict[str, Any] = json.loads(text)
        if (version := fields.pop("format_version")) != FORMAT_VERSION:
            raise CheckpointError(f"format version {version!r}; this samjax reads {FORMAT_VERSION}")
        base, config = from_json(Base, fields.pop("base")), from_json(SamConfig, fields.pop("config"))
        tuned = Tuned(base=base, config=config, leaves=leaves, thresholds=read_thresholds(path), **fields)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}); export it again") from None
    if checksum.hexdigest() != tuned.checksum:
        raise CheckpointError(f"{path} is damaged: its checksum does not fit; export it again")
    return tuned
