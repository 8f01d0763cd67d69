"""Work as files of all formats of `samjax.writers`, in OUT/export/FORMAT, and as one archive to download."""

import contextlib
import itertools
import json
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from samjax.app import durable
from samjax.app.protocols import Library, Pixels
from samjax.app.steps import BadRequest
from samjax.app.work import Work, safe_name
from samjax.atomic import replacing
from samjax.errors import describe_error
from samjax.everything.photos import output_names
from samjax.names import portable
from samjax.ops.rle import inclusive_box, rle_area
from samjax.pictures import image_hash
from samjax.readers.files import is_remote
from samjax.workfile import WorkObject, WorkState
from samjax.writers import FORMATS, Options, Photo, SegmentedPhoto
from samjax.writers.photo import OBJECT

MOST_BYTES = 4_000_000_000  # of an archive; what is larger is taken from the folder
_WRITTEN = ".samjax-export.json"  # the files of an export, which the next one of this format replaces
_CHOSEN = ("polygons", "polygon_tolerance", "labelmap_suffix", "crs")  # options that a request may have
_GONE = "the photo is not there any more"
_NAME_FILES = ("yolo", "labelme", "geojson")  # formats that name the photo's file
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")  # which are compressed already


class Exported(NamedTuple):
    """The files of an export, and photos that failed."""

    folder: Path
    files: list[str]  # relative to it, with slashes
    count: int  # photos
    failed: dict[str, str]  # why a photo was not written, by its name


def options_of(given: Any, classes: Sequence[str]) -> Options:
    """The options of a request. Raises BadRequest."""
    given = {} if given is None else given
    if not isinstance(given, dict) or not set(given) <= set(_CHOSEN):
        raise BadRequest(f"options are a JSON object with some of {', '.join(_CHOSEN)}")
    kinds = {"polygons": bool, "polygon_tolerance": (int, float), "labelmap_suffix": str, "crs": (str, type(None))}
    for name, value in given.items():
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and name != "polygons"):
            raise BadRequest(f"the option {name} is not {str(value)[:40]!r}")
    if given.get("labelmap_suffix", "png") not in ("png", "tiff"):
        raise BadRequest("labelmap_suffix is png or tiff")
    if "polygon_tolerance" in given:
        given = {**given, "polygon_tolerance": float(given["polygon_tolerance"])}
    try:
        return Options(**given, classes=tuple(classes))
    except ValueError as error:
        raise BadRequest(str(error)) from error


def is_exported(state: WorkState) -> bool:
    """True for a photo with objects, and for one that a person has marked done; of others nothing is known."""
    return state.done or any(not kept.deleted for kept in state.objects)


def class_names(listed: Sequence[str], states: Sequence[WorkState]) -> list[str]:
    """The classes by number: those in the list, others that objects have, and "object" if one has none."""
    objects = [kept for state in states for kept in state.objects if not kept.deleted]
    found = sorted({kept.class_ for kept in objects if kept.class_})
    names = dict.fromkeys([*listed, *found])
    if not names or any(not kept.class_ for kept in objects):
        names[OBJECT] = None
    return list(names)


def export(library: Library, works: Mapping[str, Work], format: str, out: Path, options: Options) -> Exported:
    """Writes the works of photos, by their ids, into OUT/export/FORMAT; files of the last export there go away.

    Photos are looked at again: one that is gone or has changed, or that the format cannot have, fails, and the others
    are written. Raises OSError where nothing can be written.
    """
    folder = out / "export" / format
    durable.make_folder(folder)
    before = _written_before(folder)
    names = dict(zip(works, names_of([work.state.photo.name for work in works.values()]), strict=True))
    files: list[Path] = []
    done: list[str] = []
    failed: dict[str, str] = {}
    for id, work in works.items():
        state = work.state
        try:
            pixels = _read(library, id)
            if pixels.hash != state.photo.sha256:
                raise ValueError("the photo has changed since it was worked on")
            path = pixels.path or _own_file(library, id, work, format)
            photo = Photo(path or Path(pixels.name), _relative_name(pixels, path, out), names[id])
            written = _write(photo, pixels, state, folder, format, options)
            if pixels.path is None:
                _replace_links(written)
            files += written
            done.append(names[id])
        except FileNotFoundError:
            failed[state.photo.name] = _GONE
        except (ValueError, ImportError) as error:
            failed[state.photo.name] = describe_error(error)
    if done and (finish := FORMATS[format].finish):
        files += finish(folder, sorted(done), options)
    written = sorted({path.relative_to(folder).as_posix() for path in files})
    for stale in sorted(before.difference(written)):
        with contextlib.suppress(OSError):
            (folder / stale).unlink()
    durable.write_whole(folder / _WRITTEN, json.dumps(written).encode())
    return Exported(folder, written, len(done), failed)


def names_of(photos: Sequence[str]) -> list[str]:
    """Names of the outputs of photos as `output_names` has them; where some would be called alike, on a disk without
    upper and lower case for example, a checksum tells them apart."""
    paths = [safe_name(name) for name in photos]
    with contextlib.suppress(ValueError):
        return output_names(paths)
    tagged = [
        path.with_name(f"{path.stem}~{zlib.crc32(name.encode('utf-8', 'surrogatepass')):08x}{path.suffix}")
        for path, name in zip(paths, photos, strict=True)
    ]
    possible = [{_plain(path), _plain(path.with_suffix(""))} for path in paths]
    folders = {_plain(parent) for path in paths for parent in path.parents}
    times = Counter([*itertools.chain(*possible), *folders])
    chosen = [
        own if any(times[name] > 1 for name in names) else path
        for path, own, names in zip(paths, tagged, possible, strict=True)
    ]
    with contextlib.suppress(ValueError):
        return output_names(chosen)
    return output_names(tagged)


def _plain(path: PurePosixPath) -> str:
    return str(path).replace(".", "_").casefold()


def _read(library: Library, id: str) -> Pixels:
    try:
        return library.read(id)
    except LookupError:
        raise ValueError(_GONE) from None


def record_file(library: Library, id: str) -> Path | None:
    """The file that a record's photo was read from, if it is a local one. Raises the library's errors."""
    record = library.record(id)
    if record is None or record.photo is None or is_remote(record.photo):
        return None
    return Path(record.photo) if image_hash(record.rgb) == library.facts(id).hash else None


def _own_file(library: Library, id: str, work: Work, format: str) -> Path | None:
    """The file of a photo that the library knows none of; one from an archive is written where the format names it."""
    if format in _NAME_FILES or work.state.photo.path is not None:
        return work.photo_file()
    return record_file(library, id)


def _relative_name(pixels: Pixels, path: Path | None, out: Path) -> str:
    """A photo's path within its folder of photos: of a record without the format that its name begins with."""
    if pixels.path is not None:
        return pixels.name
    inner = PurePosixPath(pixels.name.partition("/")[2] or pixels.name)
    if path is None or path.resolve().is_relative_to(out.resolve()):  # kept there, by a name of its own
        return str(inner)
    return str(inner.with_name(path.name))


def _replace_links(files: Sequence[Path]) -> None:
    """Makes links to photos of a source into copies: `archive` follows links to the photos of the library alone."""
    for path in files:
        if path.is_symlink():
            target = path.resolve()
            with replacing(path, overwrite=True) as temporary:
                shutil.copyfile(target, temporary)


def _write(photo: Photo, pixels: Pixels, state: WorkState, folder: Path, format: str, options: Options) -> list[Path]:
    if check := FORMATS[format].check:
        check(photo.path, options)
    records = [_record(kept, pixels.size) for kept in state.objects if not kept.deleted]
    written = FORMATS[format].write(SegmentedPhoto(photo, pixels.rgb, records), folder, options)
    return [inner for path in written for inner in ([path] if path.is_file() else sorted(path.iterdir()))]


def _record(kept: WorkObject, size: tuple[int, int]) -> dict[str, Any]:
    """An object as writers take it; what is not known of it is not there."""
    x0, y0, x1, y1 = inclusive_box(kept.rle)
    points = [[x, y] for step in kept.steps[-1:] for x, y, label in step.get("points", ()) if label == 1]
    return {
        "segmentation": kept.rle,
        "area": rle_area(kept.rle),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "crop_box": [0, 0, size[1], size[0]],
        **({"predicted_iou": kept.score} if kept.score is not None else {}),
        **({"point_coords": points} if points else {}),
        **({"class": kept.class_} if kept.class_ else {}),
        **({"name": kept.name} if kept.name else {}),
    }


def archive(folder: Path, photos: Collection[Path], most: int = MOST_BYTES) -> BinaryIO:
    """A ZIP file of the last export into `folder`, open for reading and without a name: it is gone when it is closed.

    It has what the export wrote and nothing else; of links those that lead to one of `photos`. Raises BadRequest if
    there is no export, or it has more than `most` bytes, and OSError.
    """
    files = [folder / name for name in sorted(_written_before(folder))]
    allowed = {path.resolve() for path in photos}
    files = [path for path in files if path.is_file() and (not path.is_symlink() or path.resolve() in allowed)]
    if not files:
        raise BadRequest(f"there is no export as {folder.name} yet: export first")
    if (total := sum(path.stat().st_size for path in files)) > most:
        raise BadRequest(
            f"the export has {total / 1e9:.1f} GB, and at most {most / 1e9:g} are packed: take it from the folder "
            f"export/{folder.name} of the results"
        )
    packed = tempfile.TemporaryFile(dir=folder.parent)  # noqa: SIM115  (who reads it closes it)
    try:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            for path in files:
                kind = zipfile.ZIP_STORED if path.suffix.lower() in _PICTURES else zipfile.ZIP_DEFLATED
                file.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}", kind)
        packed.seek(0)
        return packed
    except BaseException:
        packed.close()
        raise


def _written_before(folder: Path) -> set[str]:
    """The files of the last export, none that are not in the folder."""
    try:
        names = json.loads((folder / _WRITTEN).read_bytes())
    except (OSError, ValueError):
        return set()
    paths = [PurePosixPath(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return {str(path) for path in paths if not path.is_absolute() and ".." not in path.parts and path.parts}


def json_of(exported: Exported) -> dict[str, Any]:
    """The answer to a request for an export."""
    return {
        "files": exported.files,
        "count": exported.count,
        "failed": {portable(name): portable(why) for name, why in exported.failed.items()},
        "download": f"/api/export/{exported.folder.name}.zip",
    }
