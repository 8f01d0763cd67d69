"""Ultralytics' YOLO segmentation datasets: https://docs.ultralytics.com/datasets/segment/"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from samjax.atomic import replacing
from samjax.writers.outlines import bridged, flat, outline
from samjax.writers.photo import DEFAULTS, Options, SegmentedPhoto

DATA = """\
# Masks by samjax; split images/ before training.
train: images
val: images
names:
"""
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # which YAML takes for something else


def write(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes yolo/labels/NAME.txt and puts the photo beside it as yolo/images/NAME.*, where Ultralytics looks for it: a
    link, or a copy where links cannot be made.

    A row is a part: class, then x y x y ..., each a share of the width or height.
    """
    height, width = found.size
    rows = []
    for record in found.records:
        for part in outline(record["segmentation"], options.polygon_tolerance):
            numbers = flat(bridged(part), (1 / width, 1 / height), digits=6)
            rows.append(" ".join([str(options.class_number(record)), *map(str, numbers)]))
    labels = folder / "yolo" / "labels" / f"{found.photo.name}.txt"
    with replacing(labels, overwrite=True) as temporary:
        temporary.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    source = found.photo.path.resolve()
    picture = folder / "yolo" / "images" / f"{found.photo.name}{source.suffix}"
    with replacing(picture, overwrite=True) as temporary:
        try:
            temporary.symlink_to(os.path.relpath(source, picture.parent.resolve()))
        except (OSError, ValueError):  # file systems and Windows accounts without links; another drive
            shutil.copyfile(source, temporary)
    return [labels, picture]


def finish(folder: Path, names: Sequence[str], options: Options = DEFAULTS) -> list[Path]:
    """Writes yolo/data.yaml, with paths relative to its own folder."""
    path = folder / "yolo" / "data.yaml"
    with replacing(path, overwrite=True) as temporary:
        rows = [f"  {number}: {_yaml(name)}\n" for number, name in enumerate(options.class_names)]
        temporary.write_text(DATA + "".join(rows), encoding="utf-8")
    return [path]


def _yaml(name: str) -> str:
    """Plain where nothing in it could mean something else; JSON's text is YAML's too."""
    return name if re.fullmatch("[A-Za-z][A-Za-z_-]*", name) and name.lower() not in _WORDS else json.dumps(name)
