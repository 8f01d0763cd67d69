"""Photos with label maps: pictures of one number a pixel, beside the photos or in a folder of their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from samjax.ops.rle import encode_rle
from samjax.readers import files
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import Reason
from samjax.readers.masks import Findings, rles_from_labels
from samjax.readers.matching import NAMES, match_photos
from samjax.readers.pictures import labels_and_void, read_photo
from samjax.readers.record import BadRecord, Record


class LabelMaps(IndexedSource):
    """VOC's palette PNGs, and instance maps of 8 to 64 bits (PNG, TIFF); 0 is background, in 8 bits 255 is void.

    Of instance maps (VOC's SegmentationObject, `samjax everything --format labelmap`) each number is a mask. In class
    maps (VOC's SegmentationClass) a number is all objects of a class at once, which no click can mean, so that with
    `each="region"` every connected region of a number is a mask (pixels touch at corners too). Objects of one class
    that touch stay one mask; where there are instance maps, they are the better choice.

    A legend beside a local map, as `samjax.writers.labelmap` writes it, names the classes of its numbers.

    A map belongs to the photo with its name in the same sub-folder, whatever the endings; NAME_labels, and what else is
    in `samjax.readers.matching.SUFFIXES`, belongs to NAME. Photos without a map are not records: VOC has maps for a
    sixth of its photos. Those whose map is 0 everywhere are records without masks; one of
    0 and 255, or of 255 alone, is a binary mask and a bad record.
    """

    def __init__(
        self, images: str, maps: str, each: Literal["label", "region"] = "label", *, channels: int = 3
    ) -> None:
        """`channels` of the photos, which are TIFF files if they are more than three. Raises ValueError if no photo has
        a map."""
        self._channels = channels
        self._images, self._maps, self._each = images, maps, each
        self._pairs, flawed, left_out = match_photos(images, maps, "_labels")
        where = f"{images} and {maps}, no photo with a label map of its name ({NAMES})"
        super().__init__(where, len(self._pairs), flawed, left_out)

    def _name(self, index: int) -> str:
        return self._pairs[index][0]

    def _read(self, index: int) -> Record:
        photo, (map_name,) = self._pairs[index]
        photo_path = files.join(self._images, photo)
        found = Findings(photo, read_photo(photo_path, self._channels))
        found.photo = photo_path
        path = files.join(self._maps, map_name)
        labels, void = labels_and_void(files.read(path), path)
        if labels.shape != found.size:
            raise BadRecord(
                f"its label map has {labels.shape[1]} x {labels.shape[0]} pixels, the photo {found.size[1]} x "
                f"{found.size[0]} (turned upright by its EXIF orientation)",
                Reason.SIZE,
            )
        if void.any() and not labels.any():
            raise BadRecord(
                "its label map has no number but 255, which is void in maps of 8 bits; a binary mask is given as pairs="
            )
        classes = self._legend(map_name) if self._each == "label" else {}
        for category, part in self._parts(labels):
            for label, rle in rles_from_labels(part):
                if category is None:
                    found.add(f"label {label}", rle, label, class_=classes.get(label))
                else:
                    found.add(f"label {category}", rle, f"{category}/{label}", category)
        if void.any():
            found.add_void("void", encode_rle(void))
        return found.record()

    def _legend(self, map_name: str) -> dict[int, str]:
        """The classes of a map's numbers, from the legend that `samjax.writers.labelmap` puts beside it."""
        path = files.join(self._maps, f"{map_name.removesuffix(files.ending(map_name))}.json")
        if files.is_remote(path) or not Path(path).is_file():
            return {}
        try:
            return {int(number): str(entry["class"]) for number, entry in json.loads(files.read(path)).items()}
        except (ValueError, TypeError, KeyError, AttributeError):  # a file of something else
            return {}

    def _parts(self, labels: np.ndarray) -> Iterator[tuple[int | None, np.ndarray]]:
        """Maps whose numbers are masks, with the label that they are all of, None for labels themselves."""
        if self._each == "label":
            yield None, labels
            return
        from scipy import ndimage

        for label in np.unique(labels[labels > 0]).tolist():
            yield label, ndimage.label(labels == label, np.ones((3, 3)))[0]
