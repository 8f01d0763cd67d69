"""The demonstration: what the bundled model finds in bundled photos by a point, by a box and by a grid of points."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from samjax import assets, hub, pictures
from samjax.amg.config import GenerationConfig
from samjax.amg.generator import MaskGenerator
from samjax.amg.labels import label_map
from samjax.atomic import replacing
from samjax.segment import Box, Point, Request, segment
from samjax.visualise import contact_sheet, overlay_labels
from samjax.writers.answers import write_answer

SHEET = "contact_sheet.jpg"


@dataclasses.dataclass(frozen=True)
class Scene:
    """A bundled photo and what is asked about it, in its pixels."""

    photo: str
    point: Point
    box: Box


SCENES = (
    Scene("astronaut", (225.0, 120.0, 1), (150.0, 10.0, 300.0, 210.0)),
    Scene("cat", (165.0, 115.0, 1), (125.0, 80.0, 212.0, 150.0)),
    Scene("rocket", (325.0, 230.0, 1), (300.0, 120.0, 350.0, 425.0)),
)


def run(out: Path, dtype: str = "float32") -> Iterator[tuple[str, Path]]:
    """Segments every scene, computing in `dtype`; yields a description and the path of each file that it writes.

    For each photo NAME: NAME_point and NAME_box, each an overlay, mask pictures and JSON (`write_answer`), and
    NAME_everything.json, the records of `MaskGenerator`; for all, the contact sheet.
    """
    sam = hub.load().with_dtype(dtype)
    # Small pieces and what lies within other masks would hide the picture.
    generator = MaskGenerator(sam, GenerationConfig(nms="mask", box_nms_thresh=0.3, min_mask_region_area=100))
    rows = []
    for scene in SCENES:
        path = assets.photo(scene.photo)
        rgb = pictures.read_image(path)
        embedding = sam.encode(rgb)
        described = {
            "image": path.name,
            "model": {"checkpoint": hub.BUNDLED, "variant": sam.config.variant, "dtype": dtype},
        }
        drawn = []
        for kind, request in (("point", Request(points=(scene.point,))), ("box", Request(boxes=(scene.box,)))):
            answer = segment(sam, rgb, embedding, request, multimask=kind == "point")
            if kind == "point":  # of the three masks that answer an ambiguous point, the most confident
                answer = answer.most_confident()
            files = write_answer(out, f"{scene.photo}_{kind}", rgb, request, answer, described)
            drawn.append(Image.open(files[0]).convert("RGB"))
            for file in files:
                yield f"{scene.photo}: what a {kind} finds", file
        records = generator.generate(rgb)
        report = out / f"{scene.photo}_everything.json"
        with replacing(report, overwrite=True) as temporary:
            temporary.write_text(json.dumps({**described, "masks": records}, indent=1), encoding="utf-8")
        yield f"{scene.photo}: all {len(records)} masks", report
        drawn.append(overlay_labels(rgb, label_map(records, rgb.shape[:2])))
        rows.append([Image.fromarray(np.asarray(rgb)), *drawn])
    sheet = contact_sheet(rows, ("photo", "a point", "a box", "everything"))
    with replacing(out / SHEET, overwrite=True) as temporary:
        sheet.save(temporary, format="JPEG", quality=90)
    yield "all of it at a glance", out / SHEET
