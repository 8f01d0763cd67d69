"""Whatever prompts the reference's predictor takes, in whatever shape and dtype, samjax's answers the same."""

import numpy as np
import pytest
from example_models import random_photo
from parity.comparison import IOU_BAR, LOGITS_BAR, relative_error

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

NO_POINTS, NO_LABELS = np.zeros((0, 2)), np.zeros(0)
POINTS, BOX = np.array([[31, 22], [70, 41]]), np.array([20, 12, 63, 48])
MASK = (6 - 12 * np.hypot(*np.mgrid[-1:1:32j, -1:1:32j])).astype(np.float32)[None]

PREDICT = {
    "no points": {"point_coords": NO_POINTS, "point_labels": NO_LABELS},
    "no points and a mask": {"point_coords": NO_POINTS, "point_labels": NO_LABELS, "mask_input": MASK},
    "no points and a box": {"point_coords": NO_POINTS, "point_labels": NO_LABELS, "box": BOX},
    "no points, a box and a mask": {
        "point_coords": NO_POINTS,
        "point_labels": NO_LABELS,
        "box": BOX,
        "mask_input": MASK,
    },
    "nothing": {},
    "labels without points": {"point_labels": np.array([1]), "box": BOX},
    "integers": {"point_coords": POINTS, "point_labels": np.array([1, 0], np.uint8)},
    "booleans": {"point_coords": POINTS.astype(np.int16), "point_labels": np.array([True, False])},
    "floats": {"point_coords": POINTS.astype(np.float16), "point_labels": np.array([1.0, 0.0])},
    "not a point": {"point_coords": POINTS, "point_labels": np.array([1, -1])},
    "not a point beside a box": {"point_coords": POINTS, "point_labels": np.array([-1, 1]), "box": BOX},
    "a box of two axes": {"box": BOX[None].astype(np.float32)},
    "a box of three axes": {"box": BOX[None, None]},
    "two corners": {"box": BOX.reshape(2, 2)},
    "a mask of float64": {"mask_input": MASK.astype(np.float64)},
    "a mask of booleans": {"mask_input": MASK > 0},
    "labels as a list": {"point_coords": POINTS, "point_labels": [1, 0]},
    "a mask as a tensor": {"mask_input": torch.tensor(MASK).bfloat16().requires_grad_()},
}

POINT_SETS = torch.tensor([[[20.0, 31.0], [50.0, 11.0]], [[33.0, 40.0], [5.0, 7.0]]])  # in the INPUT frame
UNEVEN = torch.tensor([[[31.625, 15.8125], [15.8125, 3.9375]], [[31.875, 31.625], [7.90625, 15.9375]]])  # + 0.5 rounds
LABEL_SETS = torch.tensor([[1, 0], [1, 1]])
BOXES = torch.tensor([[4.0, 5.0, 41.0, 33.0], [20.0, 3.0, 61.0, 40.0]])
MASKS = torch.tensor(np.stack([MASK, -MASK]))

PREDICT_TORCH = {
    "no points": {"point_coords": torch.zeros(2, 0, 2), "point_labels": torch.zeros(2, 0)},
    "no points and a mask": {
        "point_coords": torch.zeros(2, 0, 2),
        "point_labels": torch.zeros(2, 0),
        "mask_input": MASKS,
    },
    "no points and boxes": {"point_coords": torch.zeros(2, 0, 2), "point_labels": torch.zeros(2, 0), "boxes": BOXES},
    "boxes of three axes": {"boxes": BOXES[:, None]},
    "boxes as corners": {"boxes": BOXES.reshape(2, 2, 2)},
    "integer boxes": {"boxes": BOXES.int()},
    "bfloat16 boxes": {"boxes": BOXES.bfloat16()},
    "bfloat16 points": {"point_coords": UNEVEN.bfloat16(), "point_labels": LABEL_SETS},
    "bfloat16 points and boxes": {
        "point_coords": UNEVEN.bfloat16(),
        "point_labels": LABEL_SETS,
        "boxes": UNEVEN.flip(1).bfloat16(),
    },
    "bfloat16 labels": {"point_coords": POINT_SETS, "point_labels": LABEL_SETS.bfloat16()},
    "float16": {"point_coords": POINT_SETS.half() / 3, "point_labels": LABEL_SETS.half(), "boxes": BOXES.half()},
    "float64": {"point_coords": POINT_SETS.double() / 3, "point_labels": LABEL_SETS.double()},
    "integers": {"point_coords": POINT_SETS.long(), "point_labels": LABEL_SETS.bool()},
    "labels without points": {"point_labels": LABEL_SETS, "boxes": BOXES},
    "one mask for all boxes": {"boxes": BOXES, "mask_input": MASKS[:1]},
    "one box for all masks": {"boxes": BOXES[:1], "mask_input": MASKS},
    "masks alone": {"mask_input": MASKS},
}


@pytest.fixture(scope="module")
def predictors(small):
    """(The reference's, samjax's), both at the same photo."""
    from samjax import SamPredictor

    theirs, sam = small
    ours = SamPredictor(sam)
    for predictor in (theirs, ours):
        predictor.set_image(random_photo(60, 90))
    return theirs, ours


def assert_same(ours, theirs):
    masks, iou, logits = (np.asarray(part) for part in ours)
    assert [part.dtype for part in (masks, iou, logits)] == [np.asarray(part).dtype for part in theirs]
    assert masks.shape == theirs[0].shape
    assert (masks == np.asarray(theirs[0])).mean() >= 0.999  # of so small a photo one pixel may be at the threshold
    assert relative_error(iou, theirs[1]) <= IOU_BAR
    assert relative_error(logits, theirs[2]) <= LOGITS_BAR


@pytest.mark.parametrize("prompt", PREDICT.values(), ids=PREDICT)
def test_predict(predictors, prompt):
    theirs, ours = predictors
    assert_same(ours.predict(**prompt), theirs.predict(**prompt))


@pytest.mark.parametrize("prompt", PREDICT_TORCH.values(), ids=PREDICT_TORCH)
def test_predict_torch(predictors, prompt):
    theirs, ours = predictors
    prompt = {"point_coords": None, "point_labels": None, **prompt}
    answer = ours.predict_torch(**prompt)
    assert all(isinstance(part, torch.Tensor) for part in answer)
    assert_same(answer, theirs.predict_torch(**prompt))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32, torch.float64])
def test_coordinates_as_tensors(predictors, dtype):
    theirs, ours = predictors
    size = ours.original_size
    for name, values in {"apply_coords_torch": POINT_SETS, "apply_boxes_torch": BOXES[:, None]}.items():
        expected = getattr(theirs.transform, name)(values.to(dtype), size)
        found = getattr(ours.transform, name)(values.to(dtype), size)
        assert found.dtype == expected.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
