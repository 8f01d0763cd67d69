"""A picture of integers: 0 is background, i + 1 the i-th record; the smallest of overlapping masks is on top."""

from pathlib import Path

import numpy as np
from PIL import Image

from samjax.atomic import replacing
from samjax.writers.photo import Options, SegmentedPhoto

MOST = np.iinfo(np.uint16).max


def write(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes NAME_labels.png or .tiff with 16 bits a pixel; TIFF has 32 where there are more than 65,535 masks.

    Raises ValueError for so many masks and PNG.
    """
    count = len(found.records)
    if count > MOST and options.labelmap_suffix == "png":
        raise ValueError(f"a PNG label map has room for {MOST} masks, there are {count}: use --labelmap-suffix tiff")
    labels = found.labels if count > MOST else found.labels.astype(np.uint16)
    path = folder / f"{found.photo.name}_labels.{options.labelmap_suffix}"
    compression = {"compression": "tiff_lzw"} if options.labelmap_suffix == "tiff" else {}
    with replacing(path, overwrite=True) as temporary:
        Image.fromarray(labels).save(temporary, **compression)
    return [path]
