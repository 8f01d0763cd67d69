"""Annotated photos of `samjax.readers` as a data set of objects."""

import numpy as np

from samjax.evaluation.protocol import Object, Sample
from samjax.ops.rle import RLE, decode_rle, encode_rle, rle_area, union_rle
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import Problem, Tally
from samjax.readers.record import Record, Source


class AnnotatedPhotos:
    """A `Dataset` of the records of a source: each mask is an object, and void is not judged.

    Where an object lies within void, as COCO's crowds cover some, it is judged. Objects keep the ids, categories and
    recorded clicks of their source; those of sources without ids are numbered from 0. Files and annotations that belong
    to no photo are none of the data set's photos, but `strays`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def left_out(self) -> Tally:
        """Numbers of what was known to be left out when the source was opened; flawed photos among it fail."""
        return self._source.left_out if isinstance(self._source, IndexedSource) else Tally()

    @property
    def strays(self) -> tuple[Problem, ...]:
        """Files and annotations that belong to no photo."""
        return self._source.strays if isinstance(self._source, IndexedSource) else ()

    def __len__(self) -> int:
        return len(self._source) - len(self.strays)

    def name(self, index: int) -> str:
        return self._source.name(index)

    def __getitem__(self, index: int) -> Sample:
        """Annotations that cannot be used are left out and named, and so are crowds.

        Raises `samjax.readers.record.BadRecord`, a ValueError, if the photo cannot be used, and OSError.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"photo {index} of {len(self)}")
        record = self._source[index]
        ids = record.ids or range(len(record.masks))
        categories = record.categories or (None,) * len(record.masks)
        clicks = record.clicks or ((),) * len(record.masks)
        objects = tuple(
            Object(mask, identity, category, _outside(record, mask), clicked)
            for mask, identity, category, clicked in zip(record.masks, ids, categories, clicks, strict=True)
        )
        left_out = (*record.problems, *record.crowds)
        return Sample(record.name, record.rgb, objects, left_out=left_out, noted=record.noted)


def _outside(record: Record, mask: RLE) -> RLE | None:
    """The void outside of a mask."""
    void = record.void
    if void is None or rle_area(union_rle([void, mask])) == rle_area(void) + rle_area(mask):
        return void
    rest = decode_rle(void) & ~decode_rle(mask)
    return encode_rle(rest) if np.any(rest) else None
