"""Models by name or by file: the official checkpoints are fetched once into a cache folder."""

import contextlib
import dataclasses
import difflib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from samjax import checkpoint
from samjax.checkpoint import CheckpointError, Placement
from samjax.config import VARIANTS
from samjax.sam import Sam

_ATTEMPTS = 5  # to go on after a dropped connection, in one call; the next call goes on where this one ends
_CHUNK = 1 << 16  # bytes; as many are lost where a connection breaks


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


def load(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: Any = np.float32,
    sharding: Placement = None,
    image_size: tuple[int, int] | int | None = None,
    files: Mapping[str, RemoteFile] = OFFICIAL,
) -> Sam:
    """A model ready to run.

    Args:
        name_or_path: "vit_b", "vit_l" or "vit_h" (the official checkpoints), or a checkpoint: a native or Hugging Face
            folder, `.pth`, `.pt`, `.bin` or `.safetensors`.
        dtype: of the parameters; None keeps the dtypes of the file.
        sharding: where parameters go: one `jax.sharding.Sharding`, or a function of (name, `jax.ShapeDtypeStruct`) that
            gives one; None is the default device. Each device receives its own shards, one parameter after the other.
        image_size: (height, width) or side in pixels to resample the position tables to; None keeps the checkpoint's.
        files: what names stand for; another table names a mirror, or models of your own.

    Raises:
        DownloadError: the file could not be fetched.
        CheckpointError: there is no such name or file, or it is damaged, or it is not exactly a SAM (of that variant).
    """
    path = locate(name_or_path, files=files)
    if checkpoint.is_native(path):
        config, params = checkpoint.restore(path, dtype=dtype, sharding=sharding)
    else:
        from samjax import convert

        def place(name, array):
            return checkpoint.place(name, array, dtype=dtype, sharding=sharding)

        config, params = convert.read(path, place=place)
    if name_or_path in files and name_or_path in VARIANTS and config.variant != name_or_path:
        raise CheckpointError(f"{name_or_path} was asked for, but {path} holds a {config.variant}")
    sam = Sam(config, params)
    return sam if image_size is None else sam.with_image_size(image_size)


def locate(name_or_path: str | os.PathLike[str], *, files: Mapping[str, RemoteFile] = OFFICIAL) -> Path:
    """The checkpoint that a known name or a path stands for, fetched if need be; known names come first."""
    if name_or_path in files:
        return download(files[str(name_or_path)])
    path = Path(name_or_path)
    if path.exists():
        return path
    nearest = difflib.get_close_matches(str(name_or_path), files, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise CheckpointError(
        f"{str(name_or_path)!r} is neither a file or folder nor a known name ({', '.join(files)}){hint}"
    )


def cache_dir() -> Path:
    """Where downloads are kept: `SAMJAX_CACHE`, else the platform's cache folder."""
    if folder := os.environ.get("SAMJAX_CACHE"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("samjax"))


def download(file: RemoteFile, *, progress: bool = True) -> Path:
    """Fetches a file into the cache unless it is there, and compares its sha256 in either case.

    An interrupted download is kept as `NAME.part` and goes on at the next call.
    """
    import pooch
    import requests

    folder = cache_dir()
    part = folder / f"{file.name}.part"
    advice = (
        f"Where there is no network, fetch {file.url} elsewhere and put it at {folder / file.name} "
        "(the environment variable SAMJAX_CACHE names another folder)"
    )

    def fetch(url: str, target: str, _: Any) -> None:
        try:
            _fetch_resuming(url, part, progress)
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()
        part.replace(target)

    pooch.get_logger().setLevel(logging.WARNING)  # the progress bar says that something is fetched
    try:
        manager = pooch.create(path=folder, base_url="", registry={file.name: f"sha256:{file.sha256}"})
        manager.urls = {file.name: file.url}
        return Path(manager.fetch(file.name, downloader=fetch))
    except requests.HTTPError as error:
        status = f"{error.response.status_code} {error.response.reason}"
        raise DownloadError(f"{file.url} could not be fetched: the server answers {status}. {advice}") from None
    except requests.RequestException as error:
        kept = f", {part.stat().st_size} bytes are kept, call again to go on" if part.exists() else ""
        raise DownloadError(f"{file.url} could not be fetched ({type(error).__name__}{kept}). {advice}") from None
    except ValueError as error:  # pooch's answer to another sha256
        raise CheckpointError(f"{file.url} gave another file than the official one: {error}") from None
    except OSError as error:
        raise DownloadError(f"{folder} cannot hold {file.name}: {error}. SAMJAX_CACHE names another folder") from None


def _fetch_resuming(url: str, part: Path, progress: bool) -> None:
    """Appends to `part` what it lacks."""
    import requests

    for attempt in range(_ATTEMPTS):
        start = part.stat().st_size if part.exists() else 0
        with part.open("ab") as stream:
            try:
                _fetch_once(url, stream, start, progress)
                return
            except requests.HTTPError as error:
                if not start or error.response.status_code != 416:
                    raise
                stream.truncate(0)  # no bytes beyond these: a finished file, or a longer one of something else
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if attempt == _ATTEMPTS - 1 or stream.tell() <= start:
                    raise


def _fetch_once(url: str, stream: BinaryIO, start: int, progress: bool) -> None:
    """Appends what the server has beyond `start`, or the whole file if that is its answer."""
    import pooch
    import tqdm

    with contextlib.ExitStack() as stack:

        def begin(response, **_):
            stack.callback(response.close)
            if response.status_code == 200:  # nothing was asked for, or the server knows no ranges
                stream.truncate(0)

        # pooch sets the total; it takes a bar whose total is 0 for none.
        bar = stack.enter_context(tqdm.tqdm(total=1, unit="B", unit_scale=True, disable=not progress))
        pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=_CHUNK,
            headers={"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {}),
            hooks={"response": begin},
        )(url, stream, None)
