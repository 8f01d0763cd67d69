"""Data sets by what a command says: FORMAT=PATH."""

from collections.abc import Callable

from samjax.data import sources
from samjax.data.coco import Coco
from samjax.data.record import Source
from samjax.evaluation.datasets import interactive
from samjax.evaluation.datasets.annotated import AnnotatedPhotos
from samjax.evaluation.datasets.bsds import BsdsSegments
from samjax.evaluation.datasets.sbd import Sbd
from samjax.evaluation.protocol import Dataset


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
    https://; commas separate them and cannot be part of them.

    Raises:
        ValueError: the format is unknown, or the files are not those of the format; the message says which files were
            expected and what was found.
        OSError: the network fails.
    """
    form, paths = sources.parsed(spec, FORMATS)
    try:
        return FORMATS[form][0](*paths)
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from error
