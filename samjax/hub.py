"""Models by name or by file: the official checkpoints are fetched once into a cache folder."""

import dataclasses
import difflib
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from samjax import assets, checkpoint
from samjax.checkpoint import CheckpointError, Description, Placement
from samjax.config import VARIANTS
from samjax.sam import Sam

_ATTEMPTS = 5  # to go on after a dropped connection, in one call; the next call goes on where this one ends
_CHUNK = 1 << 16  # bytes; as many are lost where a connection breaks
_TIMEOUT = 30  # seconds without a byte
_DTYPES = ("float32", "bfloat16", "float16")


class DownloadError(OSError):
    """A file that could not be fetched; the message says what to put where instead."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


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


BUNDLED = "samjax-tiny"  # travels inside the package


def everything_thresholds(name_or_path: str | os.PathLike[str] = BUNDLED) -> dict[str, float]:
    """Arguments of `SamAutomaticMaskGenerator` that suit a model: Meta's, and lower ones for the bundled model.

    A small model is rarely sure: its predicted IoUs are low and its logits near 0, so that Meta's thresholds, made for
    large models, leave hardly a mask.
    """
    if name_or_path == BUNDLED:
        return {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.7, "stability_score_offset": 0.3}
    return {"pred_iou_thresh": 0.88, "stability_score_thresh": 0.95, "stability_score_offset": 1.0}


def load(
    name_or_path: str | os.PathLike[str] = BUNDLED,
    *,
    dtype: Any = np.float32,
    sharding: Placement = None,
    image_size: Sequence[int] | int | None = None,
    drop: Sequence[str] | str = (),
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
        files: what names stand for; another table names a mirror, or models of your own.

    Raises:
        DownloadError: the file could not be fetched.
        CheckpointError: there is no such name or file, or it is damaged, or it is not exactly a SAM (of that variant).
        ValueError: there is no such `dtype` for parameters.
    """
    _check_dtype(dtype)
    path = locate(name_or_path, files=files)
    if checkpoint.is_native(path) and not drop:
        config, params = checkpoint.restore(path, dtype=dtype, sharding=sharding)
    else:
        from samjax import convert

        def place(name, array):
            return checkpoint.place(name, array, dtype=dtype, sharding=sharding)

        config, params = convert.read(path, place=place, drop=drop)
    if name_or_path in files and name_or_path in VARIANTS and config.variant != name_or_path:
        raise CheckpointError(f"{name_or_path} was asked for, but {path} holds a {config.variant}")
    sam = Sam(config, params)
    if image_size is None:
        return sam
    return sam.with_image_size(image_size if isinstance(image_size, int) else tuple(image_size))


def describe(name_or_path: str | os.PathLike[str]) -> Description:
    """What a model is, as `samjax info` prints it, without loading it; raises what `load` does."""
    from samjax import convert

    return convert.describe(locate(name_or_path))


def locate(name_or_path: str | os.PathLike[str], *, files: Mapping[str, RemoteFile] = OFFICIAL) -> Path:
    """The checkpoint that a known name or a path stands for, fetched if need be.

    Only a string can be a known name, and not one that a file or folder here has too.
    """
    path = Path(name_or_path)
    known = (BUNDLED, *files)
    if name_or_path in known:
        if path.exists():
            raise CheckpointError(
                f"{path} is both a known name and a file or folder here; say ./{path} for the one here, "
                "or rename it to have the known one"
            )
        return assets.model() if name_or_path == BUNDLED else download(files[str(name_or_path)])
    if path.exists():
        return path
    if str(path) in known:
        raise CheckpointError(f"There is no file or folder {name_or_path}; the known name is the string {str(path)!r}")
    nearest = difflib.get_close_matches(str(name_or_path), known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise CheckpointError(
        f"{str(name_or_path)!r} is neither a file or folder nor a known name ({', '.join(known)}){hint}"
    )


def cache_dir() -> Path:
    """Where downloads are kept: `SAMJAX_CACHE`, else the platform's cache folder."""
    if folder := os.environ.get("SAMJAX_CACHE"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("samjax"))


def download(file: RemoteFile, *, progress: bool = True) -> Path:
    """Fetches a file into the cache unless it is there, and compares its sha256 in either case.

    An interrupted download is kept as `NAME.part` and resumed by the next call.
    """
    import pooch
    import requests

    folder = cache_dir()
    path, part = folder / file.name, folder / f"{file.name}.part"
    advice = (
        f"Where there is no network, fetch {file.url} elsewhere and put it at {path} "
        "(the environment variable SAMJAX_CACHE names another folder)"
    )

    def fetch(url: str, target: str, _: Any) -> None:
        with _open_part(part) as stream:
            written = Path(stream.name)
            try:
                try:
                    _fetch_resuming(url, stream, progress)
                finally:
                    if os.name == "nt":  # which renames and deletes closed files only; elsewhere the lock goes on
                        stream.close()
                written.replace(target)
            finally:
                if written.exists() and (written != part or not written.stat().st_size):
                    written.unlink()

    def damage() -> str:
        if not path.exists():
            return ""
        found = pooch.file_hash(str(path))
        return f"{path} is there, but its sha256 is {found}, expected {file.sha256}: it is damaged or another file. "

    pooch.get_logger().setLevel(logging.WARNING)  # the progress bar says that something is fetched
    try:
        manager = pooch.create(path=folder, base_url="", registry={file.name: f"sha256:{file.sha256}"})
        manager.urls = {file.name: file.url}
        return Path(manager.fetch(file.name, downloader=fetch))
    except requests.HTTPError as error:
        problem = f"the server answers {error.response.status_code} {error.response.reason}"
        raise DownloadError(f"{damage()}{file.url} could not be fetched: {problem}. {advice}") from None
    except requests.RequestException as error:
        kept = f", {part.stat().st_size} bytes are kept, call again to resume" if part.exists() else ""
        problem = f"{file.url} could not be fetched ({type(error).__name__}{kept})"
        raise DownloadError(f"{damage()}{problem}. {advice}") from None
    except ValueError as error:  # pooch's answer to another sha256
        raise CheckpointError(f"{file.url} gave another file than the official one: {error}") from None
    except OSError as error:
        raise DownloadError(f"{folder} cannot hold {file.name}: {error}. SAMJAX_CACHE names another folder") from None


def _check_dtype(dtype: Any) -> None:
    try:
        known = dtype is None or np.dtype(dtype).name in _DTYPES
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, or None for the file's own; got {dtype!r}")


def _open_part(part: Path) -> IO[bytes]:
    """`part` to append to, or a file beside it where another process appends to `part`."""
    try:
        import fcntl
    except ImportError:  # Windows
        return part.open("ab")
    stream = part.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(stream.fileno()), part.stat()):  # else finished and renamed since we opened it
            return stream
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # a file system without locks
        return stream
    stream.close()
    return part.with_name(f"{part.stem}.{uuid.uuid4().hex}.part").open("xb")


def _fetch_resuming(url: str, stream: IO[bytes], progress: bool) -> None:
    """Appends what `stream` lacks."""
    import requests

    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        start = stream.seek(0, os.SEEK_END)
        try:
            _fetch_once(url, stream, start, progress)
            return
        except requests.HTTPError as error:
            if not start or error.response.status_code != 416:
                raise
            _empty(stream)  # no bytes beyond these: a finished file, or a longer one of something else
            if last:
                raise
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            if last or stream.tell() <= start:
                raise


def _fetch_once(url: str, stream: IO[bytes], start: int, progress: bool) -> None:
    """Appends what the server has beyond `start`, or the whole file if that is its answer."""
    import requests
    import tqdm

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        response.raise_for_status()
        if response.status_code == 200:  # nothing was asked for, or the server knows no ranges
            _empty(stream)
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with tqdm.tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=not progress) as bar:
            for chunk in response.iter_content(_CHUNK):
                stream.write(chunk)
                stream.flush()
                bar.update(len(chunk))


def _empty(stream: IO[bytes]) -> None:
    stream.seek(0)
    stream.truncate()
