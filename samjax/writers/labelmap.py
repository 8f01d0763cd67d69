"""A picture of integers: 0 is background, i + 1 the i-th record; the smallest of overlapping masks is on top."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samjax.atomic import replacing
from samjax.writers.photo import Options, SegmentedPhoto

MOST = np.iinfo(np.uint16).max


def write(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes NAME_labels.png or .tiff with 16 bits a pixel; TIFF has 32 where there are more than 65,535 masks. Where
    there are classes, NAME_labels.json beside it says of what class each number is, and its score.

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
    if not options.classes:
        return [path]
    legend = folder / f"{found.photo.name}_labels.json"
    with replacing(legend, overwrite=True) as temporary:
        named = {str(number): _described(record, options) for number, record in enumerate(found.records, 1)}
        temporary.write_text(json.dumps(named, indent=1), encoding="utf-8")
    return [path, legend]


def _described(record: dict[str, Any], options: Options) -> dict[str, Any]:
    known = {key: record[key] for key in ("name", "predicted_iou") if record.get(key) is not None}
    return {"class": options.class_names[options.class_number(record)], **known}
