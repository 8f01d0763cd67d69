"""COCO datasets: one file a photo as soon as it is done, and one of the whole run."""

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from samjax.atomic import replacing
from samjax.names import portable
from samjax.ops.rle import rle_area, rle_box
from samjax.writers.outlines import bridged, flat, outline
from samjax.writers.photo import DEFAULTS, OBJECT, Options, SegmentedPhoto

EXTRA = ("predicted_iou", "stability_score", "point_coords")  # beside what COCO asks for


def write(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes coco/NAME.json, a dataset of this photo alone; its image is number 1, its annotations count from 1."""
    height, width = found.size
    annotations = []
    for record in found.records:
        rle = record["segmentation"]
        parts = outline(rle, options.polygon_tolerance) if options.polygons else []
        if options.polygons and not parts:
            continue  # COCO has no empty polygon
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 1,
                "category_id": options.class_number(record) + 1,
                "segmentation": [flat(bridged(part)) for part in parts] if options.polygons else rle,
                "area": rle_area(rle),
                "bbox": rle_box(rle),
                "iscrowd": 0,
                **{key: record[key] for key in EXTRA if key in record},
            }
        )
    image = {"id": 1, "file_name": portable(found.photo.relative), "width": width, "height": height}
    path = _path(folder, found.photo.name)
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(_dataset(options, images=[image], annotations=annotations)), encoding="utf-8")
    return [path]


def finish(folder: Path, names: Sequence[str], options: Options = DEFAULTS) -> list[Path]:
    """Writes annotations.json: the photos of `names`, numbered from 1 in that order, and all of their annotations.

    Two passes over the files of `write`, of which one is in memory at a time.
    """
    path = folder / "annotations.json"
    with replacing(path, overwrite=True) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(_dataset(options)).removesuffix("}") + ', "images": [')
        _write_items(file, _images(folder, names))
        file.write('], "annotations": [')
        _write_items(file, _annotations(folder, names))
        file.write("]}\n")
    return [path]


def _images(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(names, start=1):
        (image,) = json.loads(_path(folder, name).read_text(encoding="utf-8"))["images"]
        yield {**image, "id": number}


def _annotations(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    count = 0
    for number, name in enumerate(names, start=1):
        for annotation in json.loads(_path(folder, name).read_text(encoding="utf-8"))["annotations"]:
            count += 1
            yield {**annotation, "id": count, "image_id": number}


def _write_items(file: TextIO, items: Iterator[dict[str, Any]]) -> None:
    for number, item in enumerate(items):
        file.write((",\n" if number else "\n") + json.dumps(item))


def _dataset(options: Options, **content: list[dict[str, Any]]) -> dict[str, Any]:
    described = {"description": "Masks by samjax", "version": version("samjax")}
    names = enumerate(options.class_names, 1)
    categories = [{"id": number, "name": name, "supercategory": OBJECT} for number, name in names]
    return {"info": described, "licenses": [], "categories": categories, **content}


def _path(folder: Path, name: str) -> Path:
    return folder / "coco" / f"{name}.json"
