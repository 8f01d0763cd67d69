"""The two outputs of segment_anything's scripts/amg.py."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from samjax.atomic import replacing
from samjax.ops.rle import decode_rle
from samjax.writers.photo import Options, SegmentedPhoto

HEADER = (
    "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,"
    "crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
)


def write_rle(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes NAME.json, the list of records (--convert-to-rle)."""
    path = folder / f"{found.photo.name}.json"
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(found.records), encoding="utf-8")
    return [path]


def write_png(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes the folder NAME with a picture 0.png, 1.png, ... (0 and 255) for each record and metadata.csv, which has
    a column more where there are classes."""
    path = folder / found.photo.name
    with replacing(path, overwrite=True, foreign=_foreign) as temporary:
        temporary.mkdir()
        rows = [f"{HEADER},class" if options.classes else HEADER]
        for number, record in enumerate(found.records):
            Image.fromarray(decode_rle(record["segmentation"]).astype(np.uint8) * 255).save(temporary / f"{number}.png")
            values = [
                number,
                record["area"],
                *record["bbox"],
                *record.get("point_coords", [("", "")])[0],
                record.get("predicted_iou", ""),
                record.get("stability_score", ""),
                *record["crop_box"],
            ]
            if options.classes:
                name = options.class_names[options.class_number(record)]
                values.append('"' + name.replace('"', '""') + '"')
            rows.append(",".join(map(str, values)))
        (temporary / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return [path]


def _foreign(folder: Path) -> list[str]:
    """Entries that are not of an earlier `write_png`."""
    names = [entry.name for entry in folder.iterdir()]
    return [name for name in names if name != "metadata.csv" and not name.removesuffix(".png").isdecimal()]
