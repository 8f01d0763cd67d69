"""The photos that the page shows: of a folder, one image, uploads, or the records of annotated sources.

Photos are asked for by an id that the library gave out: no path ever comes from a request, and links that lead out of
the folder are not followed.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import threading
import time
import unicodedata
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samjax import pictures
from samjax.app.sized_cache import SizedCache
from samjax.app.steps import BadRequest
from samjax.embeddings import image_hash
from samjax.errors import describe_error
from samjax.everything.photos import pictures_in
from samjax.readers.record import Record
from samjax.readers.sources import FORMATS, open_sources
from samjax.transforms import Size

MOST_PIXELS = 120_000_000  # of a photo
MOST_BYTES = 500_000_000  # of a photo's file
UPLOADED = "uploads"  # what the names of uploaded photos begin with
_RESCAN = 1.0  # seconds for which a list of files is taken for the present one
_MEMORY = 800_000_000  # bytes of decoded photos
_DEVICE = re.compile(r"(?i)con|prn|aux|nul|(com|lpt)\d")  # no file of Windows can be called so
_UNSAFE = re.compile(r"[^\w .()+-]")


class UnknownPhoto(KeyError):
    """There is no photo of this id."""


class UnreadablePhoto(ValueError):
    """The photo cannot be read; the message is the library's."""


class PhotoChanged(RuntimeError):
    """The photo's pixels are no longer those that a request was made for."""


@dataclasses.dataclass(frozen=True)
class PhotoEntry:
    """A photo as it is listed, not read."""

    id: str  # 16 hexadecimal digits
    name: str  # where it is in the library, with / between folders
    path: Path | None  # None for a record, whose photo may be in an archive
    index: int | None = None  # of a record
    error: str | None = None  # why it is not read


@dataclasses.dataclass(frozen=True)
class KnownPhoto:
    """Facts of a photo that was read."""

    id: str
    name: str
    path: Path | None
    size: Size
    hash: str  # `samjax.embeddings.image_hash`


@dataclasses.dataclass(frozen=True)
class OpenPhoto(KnownPhoto):
    """A photo with its pixels."""

    rgb: UInt8[np.ndarray, "H W 3"]


def photo_id(name: str) -> str:
    """The id of a photo by its name in the library."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Library:
    """The photos of one session.

    Args:
        source: a folder, a picture file, FORMAT=PATH as `samjax.readers.sources.open_sources` takes it, or None for
            uploads alone.
        out: the folder of results, which is not searched; uploads are kept in its folder `photos`.
        most_pixels: of a photo; larger ones are refused before they are decoded.
        memory: bytes of decoded photos that are kept.

    Raises ValueError if there is no such folder, file or source.
    """

    def __init__(
        self,
        source: str | None,
        out: Path,
        *,
        most_pixels: int = MOST_PIXELS,
        most_bytes: int = MOST_BYTES,
        memory: int = _MEMORY,
    ) -> None:
        self.out, self.uploads = out, out / "photos"
        self.most_pixels, self.most_bytes = most_pixels, most_bytes
        self.records = open_sources([source]) if source is not None and names_format(source) else None
        path = None if source is None or self.records is not None else Path(source).expanduser()
        if path is not None and not path.exists():
            raise ValueError(f"there is no image or folder {path}; annotated photos are FORMAT=PATH")
        self.folder = path.resolve() if path is not None and path.is_dir() else None
        self._file = path.resolve() if path is not None and self.folder is None else None
        self._entries: dict[str, PhotoEntry] = {}
        self._listed = -_RESCAN
        self._known: dict[str, tuple[Any, KnownPhoto | UnreadablePhoto]] = {}
        self._photos: SizedCache[OpenPhoto] = SizedCache(memory)
        self._scanning, self._decoding, self._naming = threading.Lock(), threading.Lock(), threading.Lock()

    @property
    def name(self) -> str:
        """The name that the page shows."""
        if self.folder is not None:
            return self.folder.name or str(self.folder)
        return self._file.name if self._file is not None else ("annotated photos" if self.records else UPLOADED)

    def photos(self) -> Sequence[PhotoEntry]:
        """All photos, in the order of their names; files that have appeared meanwhile are among them."""
        with self._scanning:
            if time.monotonic() - self._listed >= _RESCAN:
                self._entries = {entry.id: entry for entry in self._scan()}
                self._listed = time.monotonic()
            return list(self._entries.values())

    def entry(self, id: str) -> PhotoEntry:
        """The photo of an id. Raises `UnknownPhoto`."""
        if id not in self._entries:
            self.photos()
        if id not in self._entries:
            raise UnknownPhoto(f"there is no photo {id[:40]!r}")
        return self._entries[id]

    def _scan(self) -> list[PhotoEntry]:
        found = []
        if self.records is not None:
            names = [self.records.name(index) for index in range(len(self.records))]
            found = [PhotoEntry(photo_id(name), name, None, index) for index, name in enumerate(names)]
        elif self._file is not None:
            found = [PhotoEntry(photo_id(self._file.name), self._file.name, self._file)]
        elif self.folder is not None:
            for path in pictures_in(self.folder, self.out):
                name = path.relative_to(self.folder).as_posix()
                # Folders that are links are not searched, so that only the file itself can be one.
                leads_out = path.is_symlink() and not self._is_inside(path, self.folder)
                error = "it is a link out of the folder" if leads_out else None
                found.append(PhotoEntry(photo_id(name), name, path, error=error))
        taken = {entry.id for entry in found}
        if self.uploads.is_dir():
            for path in sorted(self.uploads.iterdir()):
                name = f"{UPLOADED}/{path.name}"
                is_photo = path.name[0] != "." and path.is_file() and self._is_inside(path, self.uploads)
                if is_photo and photo_id(name) not in taken:
                    found.append(PhotoEntry(photo_id(name), name, path))
        return found

    @staticmethod
    def _is_inside(path: Path, folder: Path) -> bool:
        return path.resolve().is_relative_to(folder.resolve())

    def known(self, id: str) -> KnownPhoto | UnreadablePhoto | None:
        """The facts of a photo, or why it cannot be read; None if it would have to be read for that."""
        entry = self.entry(id)
        if entry.error is not None:
            return UnreadablePhoto(f"{entry.name}: {entry.error}")
        if id not in self._known:
            return None
        stamp, known = self._known[id]
        return known if known is not None and stamp == _stamp(entry) else None

    def facts(self, id: str) -> KnownPhoto:
        """Size and hash of a photo, which is read if that is not known. Raises like `read`."""
        known = self.known(id)
        if isinstance(known, UnreadablePhoto):
            raise known
        return known or self.read(id)

    def read(self, id: str) -> OpenPhoto:
        """A photo. Raises `UnknownPhoto`, or `UnreadablePhoto` with the library's message."""
        entry = self.entry(id)
        known = self.known(id)
        if isinstance(known, UnreadablePhoto):
            raise known
        if known is not None and (photo := self._photos.get((id, known.hash))) is not None:
            return photo
        with self._decoding:  # one at a time: a large one takes a gigabyte while it is decoded
            known = self.known(id)
            if isinstance(known, KnownPhoto) and (photo := self._photos.get((id, known.hash))) is not None:
                return photo
            stamp = _stamp(entry)
            try:
                rgb = self._decoded(entry)
                photo = OpenPhoto(id, entry.name, entry.path, rgb.shape[:2], image_hash(rgb), rgb)
            except (ValueError, OSError) as error:
                unreadable = UnreadablePhoto(f"{entry.name}: {self._told(entry, error)}")
                if not _is_of_system(error):
                    self._known[id] = stamp, unreadable
                raise unreadable from error
            facts = KnownPhoto(id, photo.name, photo.path, photo.size, photo.hash)
            self._known[id] = stamp, facts
            self._photos.put((id, photo.hash), photo, rgb.nbytes)
            return photo

    def record(self, id: str) -> Record | None:
        """The photo's annotations, if it is a record of a source. Raises `UnreadablePhoto`."""
        entry = self.entry(id)
        if self.records is None or entry.index is None:
            return None
        try:
            return self.records[entry.index]
        except (ValueError, OSError) as error:
            raise UnreadablePhoto(f"{entry.name}: {error}") from error

    def _decoded(self, entry: PhotoEntry) -> np.ndarray:
        if entry.path is None:
            assert self.records is not None
            assert entry.index is not None
            rgb = self.records[entry.index].rgb
            self._check_pixels(rgb.shape[:2])
            return rgb
        folder = self.folder if self.folder is not None and not self._is_inside(entry.path, self.uploads) else None
        if folder is not None and not self._is_inside(entry.path, folder):  # it may have become a link since
            raise ValueError("it is a link out of the folder")
        return self._checked(entry.path)

    def _checked(self, path: Path) -> np.ndarray:
        """The pixels of a file whose bytes and size have been looked at first."""
        if (count := path.stat().st_size) > self.most_bytes:
            raise ValueError(f"its file has {count:,} bytes; at most {self.most_bytes:,} are read")
        self._check_pixels(pictures.photo_size(path))
        return pictures.read_image(path, name="")

    def _check_pixels(self, size: Size) -> None:
        height, width = size
        if height * width > self.most_pixels:
            raise ValueError(
                f"it has {width} x {height} pixels; at most {self.most_pixels / 1e6:g} megapixels are read: "
                "make it smaller or cut it into parts"
            )

    def _told(self, entry: PhotoEntry, error: Exception) -> str:
        text = describe_error(error)
        for path in filter(None, (entry.path, entry.path and entry.path.resolve())):
            text = text.replace(f"{path}: ", "").replace(str(path), "the file")  # paths are no one's business
        return text

    def receive(self) -> "Receiving":
        """A file to write an upload to. Raises OSError if it cannot be made."""
        self.uploads.mkdir(parents=True, exist_ok=True)
        return Receiving(self.uploads)

    def sweep(self) -> None:
        """Removes what uploads of a server that was killed have left."""
        for path in self.uploads.glob(".*.part"):
            path.unlink(missing_ok=True)

    def add(self, name: str, received: "Receiving") -> PhotoEntry:
        """Keeps an upload, which is decoded first, under a safe name that no other photo has.

        Raises `UnreadablePhoto`, and BadRequest for a name without any use.
        """
        safe, file = safe_name(name), received.finish()
        try:
            with self._decoding:
                self._checked(file)
        except ValueError as error:
            text = describe_error(error).replace(f"{file}: ", "").replace(str(file), "the file")
            raise UnreadablePhoto(f"{safe}: {text}") from error
        stem, suffix = PurePosixPath(safe).stem, PurePosixPath(safe).suffix
        with self._naming:
            listed = {entry.name.casefold() for entry in self.photos()}
            for number in range(1, 10_000):
                chosen = safe if number == 1 else f"{stem} ({number}){suffix}"
                if f"{UPLOADED}/{chosen}".casefold() in listed:
                    continue
                with contextlib.suppress(FileExistsError):
                    (self.uploads / chosen).open("xb").close()  # the name is taken, whoever else wants it
                    file.replace(self.uploads / chosen)
                    break
            else:
                raise BadRequest(f"there are too many photos called {safe}")
            with self._scanning:
                self._listed = -_RESCAN
            return self.entry(photo_id(f"{UPLOADED}/{chosen}"))


class Receiving:
    """A hidden file that an upload is written to."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".{uuid.uuid4().hex}.part"
        self._file = self._path.open("xb")

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def finish(self) -> Path:
        """The file, written to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._path

    def discard(self) -> None:
        """Removes the file, unless it has been kept under another name."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def names_format(source: str) -> bool:
    """True for FORMAT=PATH, and not for a file or folder that has such a name."""
    return source.partition("=")[0] in FORMATS and "=" in source and not Path(source).exists()


def safe_name(name: str) -> str:
    """A file's name that any system takes, from what a browser says. Raises BadRequest if nothing is left of it."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    plain = _UNSAFE.sub("_", plain).strip(" .")
    stem, suffix = PurePosixPath(plain).stem[:80].strip(" ."), PurePosixPath(plain).suffix.lower()
    if not stem or suffix not in pictures.ENDINGS:
        raise BadRequest(f"a photo's name ends with one of {', '.join(pictures.ENDINGS)}, got {name[:60]!r}")
    if _DEVICE.fullmatch(stem.split(".")[0]):
        stem = f"_{stem}"
    return f"{stem}{suffix}"


def _is_of_system(error: BaseException | None) -> bool:
    """True if it was the system that failed, as where too many files are open: the next attempt may succeed."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return True
        error = error.__cause__ or error.__context__
    return False


def _stamp(entry: PhotoEntry) -> Any:
    """Changes with the file."""
    if entry.path is None:
        return "record"
    try:
        stat = entry.path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
