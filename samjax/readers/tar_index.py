"""An index of a tar's members, made once and kept in the user's cache, so that any can be read alone."""

import dataclasses
import hashlib
import logging
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from samjax.atomic import replacing
from samjax.download import cache_dir
from samjax.readers import files

_FORMAT = 1  # of the cached files
_THREADS = 16  # that index tars: over a network each waits for a header at a time
_BLOCK = tarfile.BLOCKSIZE
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstandard"}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TarIndex:
    """The regular files of a tar in the order they lie in it."""

    names: np.ndarray  # bytes, UTF-8, without a leading "./"
    offsets: np.ndarray  # int64, of the content, bytes
    sizes: np.ndarray  # int64, bytes
    flaws: tuple[str, ...]  # what could not be read, by place

    def members(self) -> Iterator[tuple[str, int, int]]:
        """Name, offset and size of each."""
        names = (name.decode("utf-8", "surrogateescape") for name in self.names.tolist())
        return zip(names, self.offsets.tolist(), self.sizes.tolist(), strict=True)


def tar_index(path: str) -> TarIndex:
    """The index of a tar, local or remote, from the cache where the tar's size and time (or ETag) are the same.

    Of damaged tars it has what can be found: after an unreadable header the search goes on block by block. Members
    that the tar's end cuts off are in the index; reading them raises EOFError.

    Raises ValueError for compressed tars and files that are no tar, OSError where the file cannot be read.
    """
    size, mark = files.state(path)
    place = str(Path(path).resolve()) if not files.is_remote(path) else path
    key = hashlib.sha256("\n".join((str(_FORMAT), place, str(size), mark)).encode("utf-8", "surrogateescape"))
    kept = cache_dir() / "tars" / f"{key.hexdigest()[:32]}.npz"
    try:
        with np.load(kept, allow_pickle=False) as arrays:
            flaws = tuple(arrays["flaws"].tolist())
            return TarIndex(arrays["names"], arrays["offsets"], arrays["sizes"], flaws)
    except FileNotFoundError:
        pass
    except Exception as error:  # NumPy and zipfile raise many kinds
        _log.warning("the index %s of %s cannot be read (%s) and is made again", kept, path, error)
    index = _scan(path, size)
    if not mark:
        return index  # a changed file could not be told
    try:
        with replacing(kept, overwrite=True) as temporary, temporary.open("wb") as file:
            flaws = np.array(index.flaws, "U")
            np.savez_compressed(file, flaws=flaws, names=index.names, offsets=index.offsets, sizes=index.sizes)
    except OSError as error:
        _log.warning("the index of %s cannot be kept (%s); SAMJAX_CACHE names another folder", path, error)
    return index


def tar_indices(paths: Sequence[str]) -> list[TarIndex | Exception]:
    """`tar_index` of each, or the OSError or ValueError that it raised; several at a time."""

    def attempt(path: str) -> TarIndex | Exception:
        try:
            return tar_index(path)
        except files.Unreachable:
            raise
        except (OSError, ValueError) as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(attempt, paths))


def _scan(path: str, size: int) -> TarIndex:
    names, offsets, sizes, flaws = [], [], [], []
    until = 0  # where the next header should be
    with files.open_seekable(path) as file:
        start = file.read(2)
        if start in _COMPRESSED:
            raise ValueError(f"{path} is compressed ({_COMPRESSED[start]}); unpack it to a plain tar or to a folder")
        file.seek(0)
        try:
            # With ignore_zeros unreadable headers are passed over rather than taken for the end.
            archive = tarfile.open(fileobj=file, mode="r:", ignore_zeros=True, errors="surrogateescape")  # noqa: SIM115
            while (member := archive.next()) is not None:
                begin = min(member.offset, member.offset_data)
                if begin > until and _holds_data(file, until):
                    flaws.append(f"bytes {until} to {begin} are damaged")
                until = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
                if member.isreg() and not member.issparse():
                    names.append(member.name.removeprefix("./").encode("utf-8", "surrogateescape"))
                    offsets.append(member.offset_data)
                    sizes.append(member.size)
        except tarfile.TarError as error:
            if until <= size:
                flaws.append(f"from byte {until} on it cannot be read ({error})")
        else:
            if until < size and _holds_data(file, until):
                flaws.append(f"from byte {until} on it is damaged")
        if not names:
            raise ValueError(f"{path} is no tar archive, or an empty one" + "".join(f"; {flaw}" for flaw in flaws))
    if until > size:
        flaws.append(f"it should have {until} bytes and ends after {size}")
    return TarIndex(np.array(names, "S"), np.array(offsets, np.int64), np.array(sizes, np.int64), tuple(flaws))


def _holds_data(file, position: int) -> bool:
    file.seek(position)
    return any(file.read(_BLOCK))
