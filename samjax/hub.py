"""Models by name or by file: the official checkpoints are fetched once into a cache folder."""

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import assets, checkpoint
from samjax.assets import BUNDLED
from samjax.checkpoint import CheckpointError, Description, ParamSharding
from samjax.config import VARIANTS, MaskThresholds
from samjax.download import ChecksumMismatch, RemoteFile, download
from samjax.sam import Sam

_DTYPES = ("float32", "bfloat16", "float16")

_BASE = "https://dl.fbaipublicfiles.com/segment_anything/"
# https://github.com/facebookresearch/segment-anything#model-checkpoints (Apache-2.0)
OFFICIAL: dict[str, RemoteFile] = {
    "vit_b": RemoteFile(
        _BASE + "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    ),
    "vit_l": RemoteFile(
        _BASE + "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    "vit_h": RemoteFile(
        _BASE + "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
}


def thresholds(
    name_or_path: str | os.PathLike[str] = BUNDLED, *, files: Mapping[str, RemoteFile] = OFFICIAL
) -> MaskThresholds:
    """The thresholds of mask generation that a model's checkpoint carries, or else Meta's.

    Nothing is fetched: the files that could be, `files`, are Meta's own.

    Raises:
        CheckpointError: there is no such name or file, or it is damaged.
    """
    from samjax import convert

    return MaskThresholds() if name_or_path in files else convert.read_thresholds(locate(name_or_path, files=files))


def everything_thresholds(name_or_path: str | os.PathLike[str] = BUNDLED) -> dict[str, float]:
    """`thresholds` as arguments of `SamAutomaticMaskGenerator`.

    A small model is rarely sure: its predicted IoUs are low and its logits near 0, so that Meta's thresholds, made for
    large models, leave hardly a mask.
    """
    return dataclasses.asdict(thresholds(name_or_path))


def load(
    name_or_path: str | os.PathLike[str] = BUNDLED,
    *,
    dtype: Any = np.float32,
    sharding: ParamSharding = None,
    image_size: Sequence[int] | int | None = None,
    drop: Sequence[str] | str = (),
    tuned: str | os.PathLike[str] | None = None,
    files: Mapping[str, RemoteFile] = OFFICIAL,
) -> Sam:
    """A model ready to run.

    Args:
        name_or_path: "samjax-tiny" (small and bundled: needs no network), "vit_b", "vit_l" or "vit_h" (the official
            checkpoints), or a checkpoint: a native or Hugging Face folder, `.pth`, `.pt`, `.bin` or `.safetensors`, as
            training programs save them too (docs/checkpoints.md).
        dtype: of the PARAMETERS: float32, bfloat16 or float16, or None for the dtypes of the file; `Sam.with_dtype`
            chooses the dtype to compute in. The matrix of the Fourier features is float32 beside any of them.
        sharding: where parameters go: one `jax.sharding.Sharding`, or a function of (name, `jax.ShapeDtypeStruct`) that
            gives one; None is the default device. Each device receives its own shards, one parameter after the other.
        image_size: (height, width) or side in pixels to resample the position tables to; None keeps the checkpoint's.
        drop: patterns (`loss.*`) for names of tensors in the file to leave out, which are no part of the model.
        tuned: a file that `samjax export RUN FILE --tuned` has written: what was tuned of this model, which is applied
            to it in float32 before parameters are cast. The whole model is then read on the host.
        files: what names stand for; another table names a mirror, or models of your own.

    Raises:
        DownloadError: the file could not be fetched.
        CheckpointError: there is no such name or file, or it is damaged, or it is not exactly a SAM (of that variant),
            or not the one that `tuned` was tuned from.
        ValueError: there is no such `dtype` for parameters.
    """
    from samjax import convert

    _check_dtype(dtype)
    path = locate(name_or_path, files=files)
    carried = convert.read_thresholds(path)
    if tuned is not None:
        config, whole, carried = convert.apply_tuned(path, tuned, name=str(name_or_path), drop=drop)
        leaves = flatten_dict(whole, sep="/").items()
        placed = {n: checkpoint.place(n, np.asarray(leaf), dtype=dtype, sharding=sharding) for n, leaf in leaves}
        params = unflatten_dict(placed, sep="/")
    elif checkpoint.is_native(path) and not drop:
        config, params = checkpoint.restore(path, dtype=dtype, sharding=sharding)
    else:

        def place(name, array):
            return checkpoint.place(name, array, dtype=dtype, sharding=sharding)

        config, params = convert.read(path, place=place, drop=drop)
    if tuned is None and name_or_path in files and name_or_path in VARIANTS and config.variant != name_or_path:
        raise CheckpointError(f"{name_or_path} was asked for, but {path} holds a {config.variant}")
    sam = Sam(config, params, thresholds=carried)
    if image_size is None:
        return sam
    return sam.with_image_size(image_size if isinstance(image_size, int) else (image_size[0], image_size[1]))


def describe(name_or_path: str | os.PathLike[str]) -> Description:
    """Describes a model, as `samjax info` prints it, without loading it; raises what `load` does."""
    from samjax import convert

    return convert.describe(locate(name_or_path))


def locate(name_or_path: str | os.PathLike[str], *, files: Mapping[str, RemoteFile] = OFFICIAL) -> Path:
    """The checkpoint that a known name or a path stands for, fetched if need be.

    Only a string can be a known name, and not one that a file or folder here has too. Raises `CheckpointError` for what
    is neither or both.
    """
    path = Path(name_or_path)
    known = (BUNDLED, *files)
    if name_or_path in known:
        if path.exists():
            raise CheckpointError(
                f"{path} is both a known name and a file or folder here; say ./{path} for the one here, "
                "or rename it to have the known one"
            )
        return assets.model() if name_or_path == BUNDLED else _downloaded(files[str(name_or_path)])
    if path.exists():
        return path
    if str(path) in known:
        raise CheckpointError(f"There is no file or folder {name_or_path}; the known name is the string {str(path)!r}")
    nearest = difflib.get_close_matches(str(name_or_path), known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise CheckpointError(
        f"{str(name_or_path)!r} is neither a file or folder nor a known name ({', '.join(known)}){hint}"
    )


def _check_dtype(dtype: Any) -> None:
    try:
        known = dtype is None or np.dtype(dtype).name in _DTYPES
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, or None for the file's own; got {dtype!r}")


def _downloaded(file: RemoteFile) -> Path:
    try:
        return download(file)
    except ChecksumMismatch as error:
        raise CheckpointError(str(error)) from None
