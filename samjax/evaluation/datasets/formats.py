"""Data sets by what a command says: FORMAT=PATH."""

from collections.abc import Callable, Collection
from pathlib import Path

from samjax.evaluation.datasets import interactive
from samjax.evaluation.datasets.annotated import AnnotatedPhotos
from samjax.evaluation.datasets.bsds import BsdsSegments
from samjax.evaluation.datasets.identity import fingerprint
from samjax.evaluation.datasets.sbd import Sbd
from samjax.evaluation.protocol import Dataset
from samjax.readers import sources
from samjax.readers.coco import Coco
from samjax.readers.record import Source


def _annotated(opened: Callable[..., Source]) -> Callable[..., Dataset]:
    return lambda *paths: AnnotatedPhotos(opened(*paths))


def _whole_coco(images: str, annotations: str) -> Source:
    return Coco(images, annotations, whole=True)


# By format: what opens it, and the paths it takes; those in brackets may be left out.
FORMATS: dict[str, tuple[Callable[..., Dataset], tuple[str, ...]]] = {
    "grabcut": (_annotated(interactive.grabcut), ("FOLDER",)),
    "berkeley": (_annotated(interactive.berkeley), ("FOLDER",)),
    "davis": (_annotated(interactive.davis), ("FOLDER",)),
    "sbd": (_annotated(Sbd), ("FOLDER", "[SPLIT]")),
    "bsds": (BsdsSegments, ("FOLDER", "[SPLIT]")),
    **{form: (_annotated(opened), paths) for form, (opened, paths) in sources.FORMATS.items()},
    "coco": (_annotated(_whole_coco), ("IMAGES", "ANNOTATIONS.json")),
    "lvis": (_annotated(_whole_coco), ("IMAGES", "ANNOTATIONS.json")),
}


def open_dataset(spec: str) -> Dataset:
    """The data set written FORMAT=PATH or FORMAT=PATH,PATH; `FORMATS` has the formats and what paths they take.

    COCO and LVIS have photos without objects too, because detections there count against a detector; their crowds are
    not judged. Splits are "val" of SBD and "test" of BSDS500 where none is named. Paths are local, gs://, s3:// or
    https://. Commas separate them; one that is part of a path is written twice.

    Raises:
        ValueError: the format is unknown, or the files are not those of the format; the message says which files were
            expected and what was found.
        OSError: the network fails.
    """
    form, parts = parts_of(spec)
    try:
        return FORMATS[form][0](*parts.values())
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from error


def parts_of(spec: str) -> tuple[str, dict[str, str]]:
    """The format, and what is given for it, by `FORMATS`: {"images": PATH, "annotations": PATH}, {"folder": PATH,
    "split": NAME}. Raises ValueError as `open_dataset`."""
    form, values = sources.parse_spec(spec, FORMATS)
    names = (name.strip("[]").partition(".")[0].lower() for name in FORMATS[form][1])
    return form, dict(zip(names, values, strict=False))  # some may be left out


def identity_of(spec: str, exclude: Collection[Path] = ()) -> dict[str, str]:
    """The format, the split, and a `fingerprint` of each path but those that are one of `exclude`."""
    form, parts = parts_of(spec)
    given = {"split": parts.pop("split")} if "split" in parts else {}
    apart = {place.resolve() for place in exclude}
    prints = {name: fingerprint(path, exclude) for name, path in parts.items() if Path(path).resolve() not in apart}
    return {"format": form, **given, **prints}
