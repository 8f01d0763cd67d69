"""The input of every format: a photo, the masks found in it, and the options of writing."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32, UInt8

from samjax.amg.labels import label_map
from samjax.transforms import Size

OBJECT = "object"  # the class of what has none


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo of a job. `relative` says where it is within the job's input, `name` what its outputs begin with; both
    may have folders in them, divided by /."""

    path: Path
    relative: str
    name: str


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of writing. Polygons are in pixels of the photo, pixel (0, 0) covering [0, 1] x [0, 1]."""

    polygons: bool = False  # COCO: polygons instead of run-length encoding
    polygon_tolerance: float = 0.5  # pixels by which a simplified outline may leave the true one
    labelmap_suffix: Literal["png", "tiff"] = "png"
    crs: str | None = None  # GeoJSON: coordinate system of photos that have a transform and do not name theirs
    classes: tuple[str, ...] = ()  # names of a record's "class", in the order of their numbers; none: "object" is all

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes have different names, got {', '.join(self.classes)}")
        if not 0 <= self.polygon_tolerance < float("inf"):
            raise ValueError(f"the polygon tolerance is a number of pixels from 0 on, got {self.polygon_tolerance}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes by number, at least one."""
        return self.classes or (OBJECT,)

    def class_number(self, record: dict[str, Any]) -> int:
        """The number of a record's class. Raises ValueError if it is none of `classes`."""
        if not self.classes:
            return 0
        name = record.get("class") or OBJECT
        if name not in self.classes:
            raise ValueError(f"a mask is of class {name}, which is not one of {', '.join(self.classes)}")
        return self.classes.index(name)


DEFAULTS = Options()


@dataclasses.dataclass(frozen=True)
class SegmentedPhoto:
    """A photo with the records of its masks, as `samjax.amg.generator.MaskGenerator` makes them.

    A record may also have a "class", the name of one. Of imported or drawn masks it has no "stability_score" and no
    "point_coords", and "predicted_iou" may be missing; formats leave out what is not there.
    """

    photo: Photo
    rgb: UInt8[np.ndarray, "H W 3"]
    records: list[dict[str, Any]]

    @property
    def size(self) -> Size:
        """(height, width)"""
        return self.rgb.shape[0], self.rgb.shape[1]

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, "H W"]:
        """0 background, i + 1 the i-th record; see `label_map` for overlaps."""
        return label_map(self.records, self.size)
