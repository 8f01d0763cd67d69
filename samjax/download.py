"""Files that are fetched once into a cache folder, resumed where a connection breaks and compared with a checksum."""

import dataclasses
import logging
import os
import uuid
from pathlib import Path
from typing import IO, Any

_ATTEMPTS = 5  # to resume after a dropped connection, in one call; the next call resumes where this one ends
_CHUNK = 1 << 16  # bytes; as many are lost where a connection breaks
_TIMEOUT = 30  # seconds without a byte


class DownloadError(OSError):
    """A file that could not be fetched; the message says what to put where instead."""


class ChecksumMismatch(ValueError):
    """The server gives another file than the expected one."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file to fetch, and the checksum that tells it from others."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The name in the cache folder: the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


def cache_dir() -> Path:
    """The folder of downloads: `SAMJAX_CACHE`, or else the platform's cache folder."""
    if folder := os.environ.get("SAMJAX_CACHE"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("samjax"))


def download(file: RemoteFile, *, progress: bool = True) -> Path:
    """Fetches a file into the cache unless it is there, and compares its sha256 in either case.

    An interrupted download is kept as `NAME.part` and resumed by the next call.

    Raises:
        DownloadError: the file cannot be fetched or the cache folder cannot be written.
        ChecksumMismatch: the server gives another file.
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
                    if os.name == "nt":  # which renames and deletes closed files only; elsewhere the lock is kept
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
        problem = (
            f"the server answers {getattr(error.response, 'status_code', '')} {getattr(error.response, 'reason', '')}"
        )
        raise DownloadError(f"{damage()}{file.url} could not be fetched: {problem}. {advice}") from None
    except requests.RequestException as error:
        kept = f", {part.stat().st_size} bytes are kept, call again to resume" if part.exists() else ""
        problem = f"{file.url} could not be fetched ({type(error).__name__}{kept})"
        raise DownloadError(f"{damage()}{problem}. {advice}") from None
    except ValueError as error:  # pooch's answer to another sha256
        raise ChecksumMismatch(f"{file.url} gave another file than the official one: {error}") from None
    except OSError as error:
        raise DownloadError(f"{folder} cannot hold {file.name}: {error}. SAMJAX_CACHE names another folder") from None


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
    """Appends the bytes that `stream` lacks."""
    import requests

    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        start = stream.seek(0, os.SEEK_END)
        try:
            _fetch_once(url, stream, start, progress)
            return
        except requests.HTTPError as error:
            if not start or getattr(error.response, "status_code", None) != 416:
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
