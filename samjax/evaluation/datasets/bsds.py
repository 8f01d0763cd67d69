"""BSDS500: photos with the boundaries and segments that several people drew.

Arbelaez et al., Contour Detection and Hierarchical Image Segmentation, TPAMI 2011; in the layout of BSR/BSDS500/data.
"""

import dataclasses
import os

import numpy as np
from jaxtyping import Bool, Integer

from samjax.evaluation.datasets import layout
from samjax.evaluation.protocol import Object, Sample
from samjax.readers.masks import rles_from_labels
from samjax.readers.pictures import read_photo

_PLACES = ("", "data", "BSDS500/data", "BSR/BSDS500/data")  # below what a user may name


@dataclasses.dataclass(frozen=True)
class AnnotatedEdges(Sample):
    """One photo with what each of its annotators drew, in the same order; no objects."""

    boundaries: tuple[Bool[np.ndarray, "H W"], ...]  # one pixel wide
    segmentations: tuple[Integer[np.ndarray, "H W"], ...]  # numbers of segments, from 1


class Bsds:
    """The photos of one split, sorted by name, as `AnnotatedEdges`."""

    def __init__(self, folder: str | os.PathLike[str], split: str = "test") -> None:
        """`folder` has images/SPLIT/*.jpg and groundTruth/SPLIT/*.mat, or is one of the official folders above it.

        Raises ValueError if they are not there, or a photo has no annotations.
        """
        place = layout.top(os.fspath(folder), "groundTruth", _PLACES)
        self._files = layout.pairs(place, f"images/{split}", f"groundTruth/{split}", (".mat",))

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """The photo's, without its ending: "101085"."""
        return self._files[index][0]

    def __getitem__(self, index: int) -> AnnotatedEdges:
        """Raises ValueError if a file is damaged or the sizes differ, and OSError."""
        name, photo, annotations = self._files[index]
        rgb = read_photo(photo)
        drawn = layout.matlab(annotations, "groundTruth").ravel()
        boundaries, segmentations = [], []
        for number, one in enumerate(drawn, 1):
            try:
                boundary, segmentation = one["Boundaries"][0, 0], one["Segmentation"][0, 0]
            except (IndexError, KeyError, ValueError, TypeError) as error:
                raise ValueError(f"{annotations}: annotator {number} has no Boundaries and Segmentation") from error
            for part in (boundary, segmentation):
                if part.shape != rgb.shape[:2]:
                    raise ValueError(
                        f"{annotations}: annotator {number} drew on {part.shape} pixels (height, width), the photo has "
                        f"{rgb.shape[:2]}"
                    )
            boundaries.append(boundary > 0)
            segmentations.append(segmentation)
        if not boundaries:
            raise ValueError(f"{annotations} has no annotator")
        return AnnotatedEdges(name, rgb, (), tuple(boundaries), tuple(segmentations))


def read_bsds(folder: str | os.PathLike[str], split: str = "test") -> Bsds:
    """The photos of a split ("train", "val", "test"); see `Bsds`."""
    return Bsds(folder, split)


class BsdsSegments:
    """A `Dataset` of BSDS500: each segment of each annotator is an object, called ANNOTATOR/SEGMENT, both from 1.

    Segments of several annotators overlap; those of one cover the photo.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = "test") -> None:
        """See `Bsds`."""
        self._photos = Bsds(folder, split)

    def __len__(self) -> int:
        return len(self._photos)

    def name(self, index: int) -> str:
        return self._photos.name(index)

    def __getitem__(self, index: int) -> Sample:
        photo = self._photos[index]
        objects = tuple(
            Object(mask, f"{annotator}/{segment}")
            for annotator, segmentation in enumerate(photo.segmentations, 1)
            for segment, mask in rles_from_labels(segmentation)
        )
        return Sample(photo.name, photo.rgb, objects)
