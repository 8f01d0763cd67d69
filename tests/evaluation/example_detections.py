"""Photos of discs with annotations in COCO's form, what a detector made of them, and pycocotools' own numbers."""

import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samjax.ops.rle import encode_rle, rle_area, rle_box

HEIGHT, WIDTH, PHOTOS = 120, 160, 6
DETECTION = {"image_id": 1, "category_id": 2, "bbox": [10, 20.5, 30, 40], "score": 0.5}


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def annotated(id: int, image: int, category: int, mask: np.ndarray, crowd: int = 0) -> dict:
    rle = encode_rle(mask)
    return {
        "id": id,
        "image_id": image,
        "category_id": category,
        "segmentation": rle,
        "area": rle_area(rle),
        "bbox": rle_box(rle),
        "iscrowd": crowd,
    }


def detector_scene() -> tuple[dict, list[dict]]:
    """Photos with small, medium, large discs and crowds of three categories; detections that are off, doubled, invented
    or of the wrong category."""
    random = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, PHOTOS + 1):
        for _ in range(6):
            x, y, radius = random.uniform(20, 140), random.uniform(20, 100), random.choice([8, 14, 40, 56])
            category = int(random.integers(1, 4))
            mask = disc(x, y, radius)
            annotations.append(annotated(len(annotations) + 1, image, category, mask, int(random.random() < 0.1)))
            for _ in range(random.integers(0, 3)):
                off = disc(x + random.normal(0, 2), y + random.normal(0, 2), radius * random.uniform(0.8, 1.2))
                found = category if random.random() < 0.8 else int(random.integers(1, 4))
                result = annotated(0, image, found, off)
                results.append({name: result[name] for name in ("image_id", "category_id", "segmentation", "bbox")})
                results[-1]["score"] = float(random.random())
    truth = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(1, PHOTOS + 1)],
        "annotations": annotations,
        "categories": [{"id": id, "name": f"kind {id}"} for id in (1, 2, 3)],
    }
    return truth, results


def by_pycocotools(truth: dict, results: list[dict], kind: str, image_ids=None) -> list[float]:
    """The twelve numbers, by its own reading of files."""
    kept = "segmentation" if kind == "segm" else "bbox"
    given = [{name: result[name] for name in ("image_id", "category_id", "score", kept)} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(given), kind)
        if image_ids:
            judge.params.imgIds = image_ids
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist()


def written(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)
