"""COCO's average precision of masks and boxes, by pycocotools."""

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from samjax.evaluation.protocol import Curve, Figure
from samjax.ops.rle import rle_area

Kind = Literal["mask", "box"]
_IOU_TYPES: dict[Kind, Literal["segm", "bbox"]] = {"mask": "segm", "box": "bbox"}
PRECISIONS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
_NAMES = (*PRECISIONS, "AR@1", "AR@10", "AR@100", "AR small", "AR medium", "AR large")
_PLOTTED = {"IoU 0.5": 0, "IoU 0.75": 5, "IoU 0.9": 8}  # of COCO's ten thresholds


def coco_ap(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    kind: Kind = "mask",
    image_ids: Sequence[int | str] | None = None,
) -> dict[str, float]:
    """COCO's twelve numbers, "AP", "AP50", "AP75", "AP small", ..., "AR@100", "AR large".

    Args:
        annotations: the content of COCO or LVIS JSON, as `samjax.evaluation.datasets.detections.read_annotations`
            reads it.
        results: COCO results: {"image_id", "category_id", "score"} with "segmentation" (RLE) or "bbox"
            [x, y, width, height].
        kind: what is compared.
        image_ids: judge only these photos; by default all of the annotations, also those without results.

    A number is NaN if the annotations have nothing that it is about, e.g. no small object.
    """
    return coco_scores(annotations, results, kind, image_ids)[0]


def coco_scores(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    kind: Kind,
    image_ids: Sequence[int | str] | None,
) -> tuple[dict[str, float], Figure]:
    """COCO's twelve numbers for results (`coco_ap`), and the precision-recall curve, averaged over categories."""
    from pycocotools.cocoeval import COCOeval

    found = []
    for result in results:
        area = rle_area(result["segmentation"]) if kind == "mask" else result["bbox"][2] * result["bbox"][3]
        # pycocotools' own `loadRes` gives masks the areas of their boxes where results have both.
        found.append({**result, "area": float(area)})
    predictions = {name: truth[name] for name in ("images", "categories")} | {"annotations": found}
    judge = COCOeval(coco_index(truth), coco_index(predictions), _IOU_TYPES[kind])
    if image_ids is not None:
        numbers = numbered(truth["images"])
        judge.params.imgIds = sorted({numbers[id] for id in image_ids})
    with quiet():
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    metrics = {name: float(value) if value >= 0 else math.nan for name, value in zip(_NAMES, judge.stats, strict=True)}
    precision = judge.eval["precision"][:, :, :, 0, -1]  # (threshold, recall, category); all areas, 100 a photo
    known = precision[..., (precision >= 0).all((0, 1))]
    curves = tuple(
        Curve(label, judge.params.recThrs.tolist(), known[row].mean(1).tolist())
        for label, row in _PLOTTED.items()
        if known.shape[2]
    )
    return metrics, Figure("precision_recall", "recall", "precision", curves)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """pycocotools prints what it does."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def coco_index(content: Mapping[str, Any]) -> Any:
    """A `pycocotools.coco.COCO` of annotations that are in memory; nothing of `content` is changed.

    Images and categories are numbered anew (`numbered`), because pycocotools sorts their ids, which may be numbers and
    text, and annotations from 1, because it takes a match with number 0 for none.

    Raises ValueError for an annotation of an image or a category that `content` does not have.
    """
    from pycocotools.coco import COCO

    numbers = {"image_id": numbered(content["images"]), "category_id": numbered(content["categories"])}
    annotations = []
    for number, annotation in enumerate(content["annotations"]):
        for name, known in numbers.items():
            if annotation[name] not in known:
                raise ValueError(f"annotation or result number {number} has an unknown {name}, {annotation[name]!r}")
        ids = {name: known[annotation[name]] for name, known in numbers.items()}
        annotations.append({"iscrowd": 0, **annotation, **ids, "id": number + 1})
    images, categories = (
        [{**entry, "id": numbers[name][entry["id"]]} for entry in content[part]]
        for name, part in (("image_id", "images"), ("category_id", "categories"))
    )
    coco: Any = COCO()
    coco.dataset = {**content, "images": images, "categories": categories, "annotations": annotations}
    with quiet():
        coco.createIndex()
    return coco


def numbered(entries: Sequence[Mapping[str, Any]]) -> dict[int | str, int]:
    """Numbers from 1 by id, in the order of ids, in which pycocotools takes images: numbers first, then text."""
    ids = {entry["id"] for entry in entries}
    return {id: number for number, id in enumerate(sorted(ids, key=lambda id: (isinstance(id, str), id)), 1)}
