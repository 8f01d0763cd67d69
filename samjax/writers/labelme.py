"""labelme's annotation files."""

import json
import os
from pathlib import Path

from samjax.atomic import replacing
from samjax.writers.outlines import bridged, outline
from samjax.writers.photo import Options, SegmentedPhoto

VERSION = "5.5.0"  # of labelme, whose fields these are; later versions read them too
SCORES = (("predicted IoU", "predicted_iou"), ("stability", "stability_score"))


def write(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes labelme/NAME.json: one polygon a part; the parts of an object share their group_id."""
    path = folder / "labelme" / f"{found.photo.name}.json"
    shapes = [
        {
            "label": options.class_names[options.class_number(record)],
            "points": bridged(part).round(2).tolist(),
            "group_id": number,
            "description": ", ".join(f"{word} {record[key]:.3f}" for word, key in SCORES if key in record),
            "shape_type": "polygon",
            "flags": {},
        }
        for number, record in enumerate(found.records)
        for part in outline(record["segmentation"], options.polygon_tolerance)
    ]
    try:
        source = os.path.relpath(found.photo.path.resolve(), path.parent.resolve())
    except ValueError:  # another drive
        source = str(found.photo.path.resolve())
    height, width = found.size
    content = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(source).as_posix(),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return [path]
