"""Found masks as files: a format is a function that writes one photo's masks into a folder and returns the paths.

Every file appears complete or not at all. What a whole run has once is written by `finish`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from samjax.writers import coco, geojson, labelmap, labelme, meta, picture, yolo
from samjax.writers.photo import Options, Photo, SegmentedPhoto

__all__ = ["FORMATS", "Format", "Options", "Photo", "SegmentedPhoto"]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of found masks."""

    write: Callable[[SegmentedPhoto, Path, Options], list[Path]]
    # Of the folder and the names of the photos that are done.
    finish: Callable[[Path, Sequence[str], Options], list[Path]] | None = None
    check: Callable[[Path, Options], None] | None = None  # raises ValueError for photos that it cannot be written of
    options: tuple[str, ...] = ()  # those that decide what it writes, but for classes, which masks come with


FORMATS: dict[str, Format] = {
    "coco": Format(coco.write, coco.finish, options=("polygons", "polygon_tolerance")),
    "rle": Format(meta.write_rle),
    "png": Format(meta.write_png),
    "labelmap": Format(labelmap.write, options=("labelmap_suffix",)),
    "yolo": Format(yolo.write, yolo.finish, options=("polygon_tolerance",)),
    "labelme": Format(labelme.write, options=("polygon_tolerance",)),
    "geojson": Format(geojson.write, check=geojson.check, options=("polygon_tolerance", "crs")),
    "overlay": Format(picture.write),
}
