"""The published layouts of data sets: their place below the folder that a user names, and which files belong
together."""

import functools
import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from samjax.readers import files
from samjax.readers.matching import stem

_SHOWN = 5  # names in a message


def top(folder: str, wanted: str, places: Sequence[str]) -> str:
    """`folder`, or the first of the `places` below it, that has the folder `wanted`.

    Raises ValueError that says what was expected and what is there.
    """
    for place in places:
        candidate = files.join(folder, place) if place else folder
        if _exists(files.join(candidate, wanted)):
            return candidate
    raise ValueError(f"expected a folder {wanted} in {folder}, found {found_in(folder)}")


def pairs(
    folder: str, photos: str, annotations: str, endings: Collection[str] = files.PICTURES
) -> list[tuple[str, str, str]]:
    """Name, photo and annotation of each photo in the folder `photos` below `folder`, sorted by name.

    The annotation is the file in the folder `annotations` with the photo's name and one of these endings. Raises
    ValueError where a folder is missing or empty, or a photo has no annotation or several.
    """
    for name in (photos, annotations):
        if not _exists(files.join(folder, name)):
            raise ValueError(f"expected the folders {photos} and {annotations} in {folder}, found {found_in(folder)}")
    kinds = ", ".join(sorted(endings))
    known: dict[str, list[str]] = {}
    for name in files.names_in(files.join(folder, annotations), endings):
        known.setdefault(stem(name), []).append(name)
    names = files.names_in(files.join(folder, photos), files.PICTURES)
    if not names:
        raise ValueError(f"expected photos in {files.join(folder, photos)}, found {found_in(folder, photos)}")
    wrong = [name for name in names if len(known.get(stem(name), ())) != 1]
    if wrong:
        several = known.get(stem(wrong[0]))
        raise ValueError(
            f"expected one file ({kinds}) in {files.join(folder, annotations)} for each photo in "
            f"{files.join(folder, photos)}; "
            + (f"for {wrong[0]} there are {', '.join(several)}" if several else f"for {listed(wrong)} there is none")
        )
    stems = [stem(name) for name in names]
    if len(set(stems)) < len(stems):
        twice = next(name for name in stems if stems.count(name) > 1)
        raise ValueError(f"expected one photo of each name in {files.join(folder, photos)}, found two called {twice}")
    return [
        (
            stem(name),
            files.join(folder, f"{photos}/{name}"),
            files.join(folder, f"{annotations}/{known[stem(name)][0]}"),
        )
        for name in names
    ]


def found_in(folder: str, inner: str = "") -> str:
    """Lists the entries of a folder, for a message."""
    place = files.join(folder, inner) if inner else folder
    if files.is_remote(place):
        return "none of it"
    if not Path(place).is_dir():
        return "no such folder"
    return listed(sorted(path.name + "/" * path.is_dir() for path in Path(place).iterdir())) or "an empty folder"


def listed(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def matlab(path: str, variable: str) -> np.ndarray:
    """A variable of a MATLAB file. Raises ValueError if the file is none or has no such variable, and OSError."""
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(files.read(path)), variable_names=[variable])
    except (OSError, MemoryError):
        raise
    except Exception as error:  # scipy raises many kinds for broken files
        raise ValueError(f"{path} cannot be read as a MATLAB file: {error}") from error
    if variable not in content:
        raise ValueError(f"{path} has no variable {variable}; is it of another data set?")
    return content[variable]


def _exists(folder: str) -> bool:
    if not files.is_remote(folder):
        return Path(folder).is_dir()
    return _listed_by_server(folder)


@functools.cache
def _listed_by_server(folder: str) -> bool:
    try:
        return bool(files.names_in(folder, (*files.PICTURES, ".mat", ".txt")))
    except ValueError:
        return False
