"""Instance segmentation by boxes: a detector's boxes become masks, judged by COCO's average precision (pycocotools).

Mask areas decide about small (up to 32^2 pixels), medium (up to 96^2) and large ones, for boxes the boxes' areas.
LVIS annotations are judged by COCO's rules too, not by LVIS's own, which leave out the categories that nobody looked
for in a photo: the numbers are lower than those that papers report for LVIS.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from samjax.evaluation.datasets import digest
from samjax.evaluation.protocol import Curve, Figure, Judgement, Sample, Segmenter, Summary
from samjax.evaluation.protocols.boxes import segment_boxes
from samjax.ops.rle import encode_rle
from samjax.readers import files
from samjax.readers.masks import box_flaw, is_crowd, mask_flaws, rle_from_coco
from samjax.readers.numbers import identity, whole
from samjax.readers.numbers import number as number_of
from samjax.transforms import Size

Kind = Literal["mask", "box"]
_IOU_TYPES = {"mask": "segm", "box": "bbox"}
_PRECISIONS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
_NAMES = (*_PRECISIONS, "AR@1", "AR@10", "AR@100", "AR small", "AR medium", "AR large")
_PLOTTED = {"IoU 0.5": 0, "IoU 0.75": 5, "IoU 0.9": 8}  # of COCO's ten thresholds
_log = logging.getLogger(__name__)

BOXES_TOGETHER = 64  # asked at once: bounds the memory of masks at the photo's size


class BoxDetections:
    """Box-prompted instance segmentation: each box of a detector gives one mask, refined with its own logits once.

    Scores and categories are the detector's. The data set's samples are photos of the annotation file, named as its
    `file_name` says, with or without folders and ending. Records do not depend on the annotations, so a run resumes
    with others; results should mention `annotations_digest`.

    Args:
        annotations: COCO or LVIS JSON.
        detections: COCO results JSON, a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"},
            ORIGINAL pixels.
        refinements: how often the most confident mask is fed back.

    Raises:
        ValueError: a file is not what it should be, or the two are not about the same photos.
    """

    name = "detections"
    asks = True

    def __init__(
        self, annotations: str | os.PathLike[str], detections: str | os.PathLike[str], refinements: int = 1
    ) -> None:
        if refinements < 0:
            raise ValueError(f"refinements are 0 or more, got {refinements}")
        self.refinements = refinements
        self.truth = read_annotations(annotations)
        found = read_detections(detections, self.truth)
        self.annotations_digest = digest(annotations)
        self._detections_digest = digest(detections)
        self._ids, self._several = _ids_by_name(self.truth)
        self._found: dict[int | str, list[dict[str, Any]]] = {}
        for detection in found:
            self._found.setdefault(detection["image_id"], []).append(detection)

    def settings(self) -> dict[str, Any]:
        """The annotations have no part but for the photos' ids: they judge the records, and may be mended later."""
        ids = hashlib.sha256(json.dumps(self._ids).encode()).hexdigest()[:16]
        return {"refinements": self.refinements, "detections": self._detections_digest, "photo_ids": ids}

    def judge(self, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        """{"image_id", "results"}: COCO results with "segmentation", and the detector's "bbox"."""
        ids = [self._id(sample) for sample in samples]
        found = [self._found.get(id, []) for id in ids]
        segmenter.look([sample.rgb for sample in samples])
        results: list[list[dict[str, Any]]] = [[] for _ in samples]
        for start in range(0, max(map(len, found), default=0), BOXES_TOGETHER):
            some = [detections[start : start + BOXES_TOGETHER] for detections in found]
            boxes = [np.array([_corners(one["bbox"]) for one in part], np.float32).reshape(-1, 4) for part in some]
            answers = segment_boxes(segmenter, boxes, refinements=self.refinements)
            for photo, (part, masks) in enumerate(zip(some, answers, strict=True)):
                for detection, answer in zip(part, masks, strict=True):
                    results[photo].append({**detection, "segmentation": encode_rle(answer.masks[answer.best])})
        return [{"image_id": id, "results": result} for id, result in zip(ids, results, strict=True)]

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """COCO's twelve numbers for the masks, and its AP for the detector's boxes, over the photos of `records`."""
        ids = [record["image_id"] for record in records]
        results = [result for record in records for result in record["results"]]
        masks, figure = _judged(self.truth, results, "mask", ids)
        boxes, _ = _judged(self.truth, results, "box", ids)
        metrics = {f"mask {name}": value for name, value in masks.items()}
        return Summary(metrics | {f"box {name} (detector)": boxes[name] for name in _PRECISIONS}, (figure,))

    def _id(self, sample: Sample) -> int | str:
        for name in _spellings(sample.name):
            if name in self._several:
                raise ValueError(f"{sample.name} may be any of {', '.join(self._several[name])} in the annotations")
            if name in self._ids:
                return self._ids[name]
        raise ValueError(f"the annotations know no photo {sample.name}; do they belong to these photos?")


def coco_ap(
    annotations: str | os.PathLike[str] | Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    kind: Kind = "mask",
    image_ids: Sequence[int | str] | None = None,
) -> dict[str, float]:
    """COCO's twelve numbers, "AP", "AP50", "AP75", "AP small", ..., "AR@100", "AR large".

    Args:
        annotations: COCO or LVIS JSON, a file or its content.
        results: COCO results: {"image_id", "category_id", "score"} with "segmentation" (RLE) or "bbox"
            [x, y, width, height].
        kind: what is compared.
        image_ids: judge only these photos; by default all of the annotations, also those without results.

    A number is NaN if the annotations have nothing that it is about, e.g. no small object.
    """
    truth = annotations if isinstance(annotations, Mapping) else read_annotations(annotations)
    return _judged(truth, results, kind, image_ids)[0]


def read_annotations(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A COCO or LVIS annotation file, with its segmentations as RLE; where an annotation has no "area" or "bbox", they
    are its mask's. Raises ValueError, saying where, for what is missing or cannot be used."""
    content = _read(path, "annotations")
    for part in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise ValueError(f"{path} is no COCO annotation file: a JSON object with a list of {part!r} was expected")
    for kind, part, needed in (("image", "images", ("id", "height", "width")), ("category", "categories", ("id",))):
        for number, entry in enumerate(content[part]):
            if missing := [name for name in needed if not isinstance(entry, dict) or name not in entry]:
                raise ValueError(f"{path}: {kind} number {number} (from 0) has no {', '.join(missing)}")
            for name in needed:
                given, is_id = entry[name], name == "id"
                if not isinstance(given, int | float | str) if is_id else whole(given) is None:
                    expected = "a number or text" if is_id else "a whole number"
                    raise ValueError(
                        f"{path}: {kind} number {number} (from 0) has the {name} {given!r}; {expected} was expected"
                    )
    images = [
        {**image, "id": identity(image["id"]), "height": whole(image["height"]), "width": whole(image["width"])}
        for image in content["images"]
    ]
    named = [{**category, "id": identity(category["id"])} for category in content["categories"]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    categories = {category["id"] for category in named}
    annotations: list[dict[str, Any]] = []
    encoded: dict[Size, list[int]] = {}  # those that came as text, by the photo's size: checked together, for speed
    for number, entry in enumerate(content["annotations"]):
        try:
            annotations.append(_checked(entry, sizes, categories))
        except ValueError as error:
            raise ValueError(f"{path}: annotation number {number} (from 0) {error}") from error
        if isinstance(entry["segmentation"], dict):
            encoded.setdefault(sizes[annotations[-1]["image_id"]], []).append(number)
    for size, numbers in encoded.items():
        flaws = mask_flaws([annotations[number]["segmentation"] for number in numbers], size)
        for number, flaw in zip(numbers, flaws, strict=True):
            if flaw:
                raise ValueError(f"{path}: annotation number {number} (from 0) cannot be used: {flaw}")
    boxless = [
        number
        for number, (entry, checked) in enumerate(zip(content["annotations"], annotations, strict=True))
        if entry.get("bbox") and not checked["bbox"]
    ]
    if boxless:
        first = content["annotations"][boxless[0]]["bbox"]
        _log.warning(
            "%s: the bbox of %d annotation(s) cannot be right, that of number %d (from 0) is %r; the boxes of their "
            "masks are used",
            *(path, len(boxless), boxless[0], first),
        )
    completed = [_completed(annotation) for annotation in annotations]
    return {**content, "images": images, "categories": named, "annotations": completed}


def read_detections(path: str | os.PathLike[str], annotations: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A COCO results file with boxes; keeps "image_id", "category_id", "bbox" and "score". Raises ValueError, saying
    where, for what is missing or does not fit the annotations."""
    content = _read(path, "detections")
    if not isinstance(content, list):
        given = isinstance(content, dict) and "annotations" in content
        hint = "; annotations were given, but what a detector found is needed" if given else ""
        raise ValueError(f"{path} is no COCO results file: a JSON list of detections was expected{hint}")
    images = {image["id"] for image in annotations["images"]}
    categories = {category["id"] for category in annotations["categories"]}
    found = []
    for number, entry in enumerate(content):
        problem = _problem(entry, images, categories)
        if problem:
            raise ValueError(f"{path}: detection number {number} (from 0) {problem}")
        found.append(
            {
                "image_id": identity(entry["image_id"]),
                "category_id": identity(entry["category_id"]),
                "bbox": [number_of(side) for side in entry["bbox"]],
                "score": number_of(entry["score"]),
            }
        )
    return found


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
    coco = COCO()
    coco.dataset = {**content, "images": images, "categories": categories, "annotations": annotations}
    with quiet():
        coco.createIndex()
    return coco


def numbered(entries: Sequence[Mapping[str, Any]]) -> dict[int | str, int]:
    """Numbers from 1 by id, in the order of ids, in which pycocotools takes images: numbers first, then text."""
    ids = {entry["id"] for entry in entries}
    return {id: number for number, id in enumerate(sorted(ids, key=lambda id: (isinstance(id, str), id)), 1)}


def _judged(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    kind: Kind,
    image_ids: Sequence[int | str] | None,
) -> tuple[dict[str, float], Figure]:
    """The twelve numbers and the precision-recall curve, averaged over categories."""
    from pycocotools import mask as coco_mask
    from pycocotools.cocoeval import COCOeval

    found = []
    for result in results:
        rle = result.get("segmentation")
        area = coco_mask.area(rle) if kind == "mask" else result["bbox"][2] * result["bbox"][3]
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


def _problem(entry: Any, images: set[Any], categories: set[Any]) -> str | None:
    """The flaw of a detection, None if there is none."""
    if not isinstance(entry, dict):
        return f"is {entry!r}; an object with image_id, category_id, bbox and score was expected"
    missing = [name for name in ("image_id", "category_id", "bbox", "score") if name not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    if identity(entry["image_id"]) not in images:
        return f"is about image {entry['image_id']!r}, which the annotations do not have; are both of the same split?"
    if identity(entry["category_id"]) not in categories:
        return (
            f"is of category {entry['category_id']!r}, which the annotations do not have; "
            "a detector's own class numbers must be mapped to the annotations' category ids"
        )
    box, score = entry["bbox"], entry["score"]
    sides = [number_of(side) for side in box] if isinstance(box, list) else []
    if len(sides) != 4 or None in sides or min(sides[2:]) <= 0:
        return f"has the bbox {box!r}; [x, y, width, height] in pixels with a positive width and height was expected"
    return None if number_of(score) is not None else f"has the score {score!r}; a number was expected"


def _checked(entry: Any, sizes: Mapping[Any, Size], categories: set[Any]) -> dict[str, Any]:
    """An annotation with its segmentation as RLE, whose text is not checked. Raises ValueError with what is wrong."""
    if not isinstance(entry, dict):
        raise ValueError(f"is {entry!r}; an object with image_id, category_id and segmentation was expected")
    if missing := [name for name in ("image_id", "category_id", "segmentation") if name not in entry]:
        raise ValueError(f"has no {', '.join(missing)}")
    ids = {"image_id": identity(entry["image_id"]), "category_id": identity(entry["category_id"])}
    for name, known in (("image_id", sizes.keys()), ("category_id", categories)):
        if ids[name] not in known:
            raise ValueError(f"has the {name} {entry[name]!r}, which the file does not have")
    size, area = sizes[ids["image_id"]], entry.get("area")
    if isinstance(area, float) and math.isnan(area):  # pandas' way to say that there is none
        area = None
    if area is not None and ((area := number_of(area)) is None or area < 0):
        raise ValueError(f"has the area {entry['area']!r}; a number of pixels was expected, or none for the mask's own")
    try:
        rle = rle_from_coco(entry["segmentation"], size)
        crowd = is_crowd(entry)
    except ValueError as error:
        raise ValueError(f"cannot be used: {error}") from error
    box = None if box_flaw(entry.get("bbox"), size) else entry.get("bbox")
    return {**entry, **ids, "area": area, "bbox": box, "iscrowd": int(crowd), "segmentation": rle}


def _completed(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """A checked one as pycocotools can use it."""
    from pycocotools import mask as coco_mask

    rle, area = annotation["segmentation"], annotation.get("area")
    return {
        **annotation,
        "bbox": [float(side) for side in annotation.get("bbox") or coco_mask.toBbox(rle)],
        "area": float(coco_mask.area(rle) if area is None else area),
    }


def _read(path: str | os.PathLike[str], what: str) -> Any:
    try:
        return json.loads(files.read(os.fspath(path)))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path} of {what}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def _ids_by_name(truth: Mapping[str, Any]) -> tuple[dict[str, int | str], dict[str, list[str]]]:
    """Image ids by what samples may be called; and by names that several photos have, these photos.

    LVIS has a `coco_url` for a name. The names come in the order of photos: a run that resumes has a checksum of them.
    """
    photos = [
        (image["id"], image.get("file_name") or image.get("coco_url") or str(image["id"])) for image in truth["images"]
    ]
    ids: dict[str, int | str] = {}
    for own, name in photos:
        ids.setdefault(name, own)
    exact, several = frozenset(ids), set()
    for own, name in photos:
        several.update(
            spelling for spelling in _spellings(name) if ids.setdefault(spelling, own) != own and spelling not in exact
        )
    rivals: dict[str, list[str]] = {spelling: [] for spelling in several}
    known: dict[str, int | str] = {}
    for own, name in photos:
        for spelling in (*_spellings(name), str(own)):
            if spelling not in several:
                known.setdefault(spelling, ids.get(spelling, own))
            elif name not in rivals[spelling]:
                rivals[spelling].append(name)
    return known, rivals


def _spellings(name: str) -> Iterator[str]:
    """The spellings of a name, the strictest first: "val2017/0001.jpg", "0001.jpg", "0001"."""
    yield name
    yield name.rpartition("/")[2]
    yield Path(name).stem


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height
