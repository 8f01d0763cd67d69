"""The bar: how far samjax may be from the reference, and the prompts on which it is measured."""

import dataclasses
from typing import Any

import numpy as np

from samjax import Embedding, Prompts, Sam

# Relative L2 errors on the same float32 weights and the same photo; both sides sum in float32 in different orders.
EMBEDDING_BAR, LOGITS_BAR, IOU_BAR = 1e-5, 1e-4, 1e-4
MASK_BAR = 0.99999  # share of pixels on which binary masks agree


def relative_error(ours: Any, reference: Any) -> float:
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    return float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))


@dataclasses.dataclass(frozen=True)
class Case:
    """One prompt as each side wants it, in shares of the photo's (width, height)."""

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: bool = False

    def arguments(self, size: tuple[int, int], mask_size: tuple[int, int]) -> dict[str, np.ndarray | None]:
        """Those of `segment_anything.SamPredictor.predict`, for a photo of `size` (height, width)."""
        height, width = size
        logits = None
        if self.mask:
            y, x = np.mgrid[-1 : 1 : mask_size[0] * 1j, -1 : 1 : mask_size[1] * 1j]
            logits = (8 - 16 * (x**2 + 2 * y**2) + np.sin(9 * x)).astype(np.float32)[None]
        return {
            "point_coords": np.array(self.points) * (width, height) if self.points else None,
            "point_labels": np.array(self.labels) if self.points else None,
            "box": np.array(self.box) * (width, height, width, height) if self.box else None,
            "mask_input": logits,
        }


POINTS = (0.3, 0.4), (0.6, 0.7), (0.81, 0.15), (0.5, 0.52), (0.07, 0.9)
BOX = (0.2, 0.25, 0.7, 0.85)
CASES = {
    "one point": Case(POINTS[:1], (1,)),
    "a background point": Case(POINTS[1:2], (0,)),
    "five points": Case(POINTS, (1, 0, 1, 1, 0)),
    "a box": Case(box=BOX),
    "a box and a point": Case(POINTS[1:2], (0,), BOX),
    "a box and four points": Case(POINTS[:4], (1, 0, 1, 1), BOX),
    "a mask": Case(mask=True),
    "a mask and a point": Case(POINTS[:1], (1,), mask=True),
    "a mask and a box": Case(box=BOX, mask=True),
    "all together": Case(POINTS[:2], (1, 0), BOX, mask=True),
}


def prompts_of(arguments: dict[str, np.ndarray | None]) -> Prompts:
    """samjax's prompts from the arguments of the reference's predictor."""
    names = {"point_coords": "points", "point_labels": "labels", "box": "boxes", "mask_input": "masks"}
    return Prompts.of(**{names[name]: [value] for name, value in arguments.items() if value is not None})


def assert_same_answer(
    sam: Sam, embedding: Embedding, predictor: Any, case: Case, *, multimask: bool
) -> tuple[float, float, float]:
    """Asserts the bar for one prompt on the photo that both sides have encoded, and returns what was measured."""
    size = tuple(embedding.original_size.tolist())
    arguments = case.arguments(size, sam.config.mask_size)
    masks, iou, logits = predictor.predict(**arguments, multimask_output=multimask)
    ours = sam.predict(embedding, prompts_of(arguments), multimask=multimask)
    measured = (
        relative_error(ours.logits[0], logits),
        relative_error(ours.iou[0], iou),
        float((sam.masks(ours, embedding)[0] == masks).mean()),
    )
    assert measured[0] <= LOGITS_BAR
    assert measured[1] <= IOU_BAR
    assert measured[2] >= MASK_BAR
    return measured


def embedding_error(embedding: Embedding, predictor: Any) -> float:
    """The relative error against the features that the reference's predictor holds."""
    return relative_error(embedding.features, predictor.features[0].permute(1, 2, 0))
