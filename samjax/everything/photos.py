"""The photos of a job, in an order that every process agrees on, each with a name for its outputs."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from samjax.pictures import ENDINGS
from samjax.workfile import SNAPSHOT
from samjax.writers import Photo

RESERVED = ("annotations", "coco", "labelme", "yolo")  # what formats call their own files and folders
RECORDS = ".samjax"  # the folder that makes a folder one of results
WORK, EXPORTED = "samjax-work", ".samjax-export.json"  # likewise of `samjax app`: its name, a file in an export


def find_photos(inputs: Sequence[Path], out: Path) -> list[Photo]:
    """The photos that files and folders stand for.

    Folders are searched with their sub-folders, sorted; hidden files and folders, links to folders, the folder `out`
    and those of other runs, and files without a picture's ending are skipped. Files are taken in the order given,
    whatever their ending. A photo that is given twice is taken once.

    Outputs are named after the path within the folder, with the folder's own name in front where several are given;
    without the ending, or with it where that tells photos apart (dog.jpg and dog.png: dog_jpg and dog_png).
    Raises ValueError if there is nothing to do, an input folder is `out` or another run's, or names stay equal.
    """
    if not inputs:
        raise ValueError("no image and no folder was given")
    several = sum(path.is_dir() for path in inputs) > 1
    found: dict[Path, tuple[Path, PurePosixPath]] = {}  # by the true path
    for path in inputs:
        if not path.is_dir():
            found.setdefault(path.resolve(), (path, PurePosixPath(path.name)))
            continue
        if path.resolve() == out.resolve():
            raise ValueError(f"--out is the input folder {path}: results would be taken for photos; choose another")
        if (path / RECORDS).is_dir():
            raise ValueError(
                f"the input folder {path} holds results of a run ({RECORDS}) that would be taken for photos: "
                "name the photos themselves, or move the results"
            )
        for file in pictures_in(path, out):
            relative = PurePosixPath(file.relative_to(path).as_posix())
            found.setdefault(file.resolve(), (file, path.resolve().name / relative if several else relative))
    if not found:
        raise ValueError(f"there is no image in {', '.join(map(str, inputs))} (endings: {', '.join(ENDINGS)})")
    names = output_names([relative for _, relative in found.values()])
    return [Photo(path, str(relative), name) for (path, relative), name in zip(found.values(), names, strict=True)]


def pictures_in(folder: Path, out: Path) -> Iterator[Path]:
    """Picture files of a folder and its sub-folders, by their endings, sorted; hidden ones, links to folders, `out` and
    folders of results, of `samjax app` too, are left out."""
    out = out.resolve()
    for root, folders, files in os.walk(folder):
        here = Path(root)
        if RECORDS in folders:
            folders.clear()
            continue
        if here != folder and _is_work(here.name, files):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if name[0] != "." and (here / name).resolve() != out)
        yield from (here / name for name in sorted(files) if name[0] != "." and Path(name).suffix.lower() in ENDINGS)


def _is_work(folder: str, files: Sequence[str]) -> bool:
    """True for a folder of results of `samjax app`: by its name, by an export in it, or by work on photos elsewhere."""
    photos = {name.removesuffix(SNAPSHOT) for name in files if name.endswith(SNAPSHOT)}
    return folder == WORK or EXPORTED in files or not photos.issubset(files)


def output_names(relatives: Sequence[PurePosixPath]) -> list[str]:
    """What the outputs of photos are called, by their paths within an input folder, which are compared without regard
    to case as some file systems do. Raises ValueError if names stay equal."""

    def key(path: PurePosixPath) -> str:
        return str(path).casefold()

    stems = Counter(key(path.with_suffix("")) for path in relatives)
    folders = {key(parent) for path in relatives for parent in path.parents}

    def name(path: PurePosixPath) -> str:
        stem = path.with_suffix("")
        plain = stems[key(stem)] == 1 and key(stem) not in folders
        first, *rest = (stem if plain else path.with_name(path.name.replace(".", "_"))).parts
        return "/".join([f"{first}_" if first.casefold() in RESERVED else first, *rest])

    names = [name(path) for path in relatives]
    counts = Counter(map(str.casefold, names))
    twice = sorted({name for name in names if counts[name.casefold()] > 1 or name.casefold() in folders})
    if twice:
        raise ValueError(
            f"the results of several images would all be called {', '.join(twice)} and overwrite each other; "
            "run them apart, each into an --out of its own"
        )
    return names
