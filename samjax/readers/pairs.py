"""Photos with pictures of their masks: one file a photo, or a folder of files, each of one object."""

import dataclasses
from collections import Counter

from samjax.foreground import binary_mask
from samjax.ops.rle import encode_rle
from samjax.readers import files
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import Problem, Reason, Tally, Unusable
from samjax.readers.masks import Findings
from samjax.readers.matching import NAMES, Matches, match_photos
from samjax.readers.pictures import mask_pages, read_photo
from samjax.readers.record import Record


class Pairs(IndexedSource):
    """Binary masks; see `samjax.foreground.binary_mask`. Of files with several pages each page is an object.

    For the photo IMAGES/a/7.jpg the masks are MASKS/a/7.png, or MASKS/a/7_mask.png or with another of
    `samjax.readers.matching.SUFFIXES`, or all pictures in MASKS/a/7/. With a single folder, it is the layout of
    Kaggle's Data Science Bowl 2018: FOLDER/7/images/*.png and FOLDER/7/masks/*.png. Photos without mask files are
    not records; those whose mask is empty are records without masks. Several objects in one picture, told apart by
    numbers, are a label map.
    """

    def __init__(self, images: str, masks: str | None = None, *, channels: int = 3) -> None:
        """`channels` of the photos, which are TIFF files if they are more than three. Raises ValueError if no photo has
        a mask."""
        self._channels = channels
        self._images, self._masks = images, images if masks is None else masks
        found = _kaggle(images) if masks is None else match_photos(images, masks, "_mask", folders=True)
        self._pairs, flawed, left_out = found
        where = f"{images}, no NAME/images with NAME/masks beside it"
        if masks is not None:
            where = f"{images} and {masks}, no photo with a mask or a folder of masks of its name ({NAMES})"
        super().__init__(where, len(self._pairs), flawed, left_out)

    def _name(self, index: int) -> str:
        return self._pairs[index][0]

    def _read(self, index: int) -> Record:
        photo, masks = self._pairs[index]
        photo_path = files.join(self._images, photo)
        found = Findings(photo, read_photo(photo_path, self._channels))
        found.photo = photo_path
        for name in masks:
            path = files.join(self._masks, name)
            try:
                pages = mask_pages(files.read(path))
            except ValueError as error:
                found.leave_out(name, error)
                continue
            for number, page in enumerate(pages, 1):
                called = name if len(pages) == 1 else f"{name}/{number}"
                try:
                    mask = binary_mask(page, called)
                    if mask.shape != found.size:
                        height, width = mask.shape
                        flaw = f"it has {width} x {height} pixels, the photo {found.size[1]} x {found.size[0]}"
                        raise Unusable(flaw, Reason.SIZE)
                    found.add(called, encode_rle(mask), called)
                except ValueError as error:
                    found.leave_out(called, error)
        record = found.record()
        # That its only mask is empty says that a photo has no objects, and none of them is left out.
        return record if record.masks or len(record.problems) > 1 else dataclasses.replace(record, problems=())


def _kaggle(folder: str) -> tuple[Matches, list[Problem], Tally]:
    """`match_photos` for Kaggle's layout."""
    photos: dict[str, list[str]] = {}
    masks: dict[str, list[str]] = {}
    for name in files.names_in(folder, files.PICTURES):
        parent, _, kind = name.rpartition("/")[0].rpartition("/")
        if kind in ("images", "masks"):
            (photos if kind == "images" else masks).setdefault(parent, []).append(name)
    pairs = [(names[0], tuple(masks[key])) for key, names in photos.items() if len(names) == 1 and key in masks]
    flawed = [
        Problem(name, f"there are {len(names)} photos for one folder of masks", Reason.AMBIGUOUS)
        for key, names in photos.items()
        if len(names) > 1 and key in masks
        for name in names
    ]
    flawed += [
        Problem(names[0], "there is no photo for these masks", Reason.NO_PHOTO, stray="files")
        for key, names in masks.items()
        if key not in photos
    ]
    missing = sum(len(names) for key, names in photos.items() if key not in masks)
    return pairs, flawed, Tally(+Counter({Reason.NO_ANNOTATIONS.value: missing}))
