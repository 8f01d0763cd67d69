"""Work with recorded clicks, for tests of training and evaluation."""

from pathlib import Path

import numpy as np
from example_annotations import png
from example_models import random_photo

from samjax.ops.rle import encode_rle
from samjax.pictures import image_hash
from samjax.workfile import WorkObject, WorkPhoto, WorkState

SIZE = 48, 64
CLICKS = [[20.0, 15.0, 1], [40.0, 40.0, 0]]


def disc(x, y, radius=10):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def write_work(folder: Path) -> Path:
    """The work on a photo with a disc that was clicked twice, `CLICKS`, and one that everything-mode found."""
    photo = random_photo(*SIZE)
    steps = {"points": CLICKS[:1]}, {"points": CLICKS, "refine": True}
    objects = (
        WorkObject("clicked", encode_rle(disc(20, 15)), "prompts", steps=steps),
        WorkObject("found", encode_rle(disc(45, 30)), "everything", everything={"config": {}, "index": 4}),
    )
    described = WorkPhoto("a.png", image_hash(photo), *SIZE, "a.png")
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png(photo))
    (folder / "a.png.samjax.json").write_text(WorkState(described, objects=objects).text())
    return folder
