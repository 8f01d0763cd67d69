"""Boxes become masks: of a model that fills its box, whose IoU is the object's share of it."""

import json

import numpy as np
import pytest
from example_segmenters import Scripted, answer, rectangle, sample

SIZE = (120, 150)


def triangle(top, left, side):
    """Half of a square, diagonal included."""
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = np.tri(side, dtype=bool)
    return mask


def fill(photo, prompt, multimask):
    """The pixels from corner to corner, inclusive; of three masks the second is the most confident."""
    x0, y0, x1, y1 = prompt.box.astype(int)
    mask = rectangle(SIZE, y0, y1 + 1, x0, x1 + 1)
    return answer(~mask, mask, mask & False, iou=[0.1, 0.7, 0.2]) if multimask else answer(mask, iou=[0.9])


def test_an_objects_box_has_its_outermost_pixels():
    from samjax.evaluation.protocols.boxes import Boxes

    object = triangle(4, 7, 10)
    [record] = Boxes().judge(Scripted(fill), [sample(object)])
    [entry] = record["objects"]
    assert entry["box"] == [7, 4, 16, 13]
    assert entry["iou"] == 55 / 100
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize(
    ("object", "box"),
    [
        (rectangle(SIZE, 3, 9, 5, 6), [5, 3, 6, 8]),
        (rectangle(SIZE, 3, 4, 5, 9), [5, 3, 8, 4]),
        (rectangle(SIZE, 119, 120, 149, 150), [149, 119, 150, 120]),
    ],
)
def test_boxes_of_thin_objects_have_two_corners(object, box):
    from samjax.evaluation.protocols.boxes import Boxes

    segmenter = Scripted(fill)
    [record] = Boxes().judge(segmenter, [sample(object)])
    assert record["objects"][0]["box"] == box
    from samjax import Prompts

    Prompts.of(boxes=[prompt.box for prompt in segmenter.asked[0][1][0]])  # a model takes them


def test_the_mean_over_objects_is_known_in_all_and_by_size():
    from samjax.evaluation.protocols.boxes import Boxes

    # areas 55, 4950 and 10000: small, medium and large; their boxes have 100, 9801 and 10000 pixels
    objects = [triangle(4, 7, 10), triangle(10, 20, 99), rectangle(SIZE, 0, 100, 0, 100)]
    protocol = Boxes()
    [record] = protocol.judge(Scripted(fill), [sample(*objects)])
    metrics = protocol.summarise([record]).metrics
    ious = [55 / 100, 4950 / 9801, 1]
    assert metrics["mIoU"] == pytest.approx(np.mean(ious))
    assert [metrics[f"mIoU {size}"] for size in ("small", "medium", "large")] == pytest.approx(ious)
    assert metrics["Dice"] == pytest.approx(np.mean([2 * iou / (1 + iou) for iou in ious]))
    assert metrics["objects"] == 3
    assert "Spearman (predicted, true IoU)" not in metrics  # all are predicted alike


def test_without_refinement_a_box_gives_one_mask():
    from samjax.evaluation.protocols.boxes import segment_boxes

    segmenter = Scripted(fill)
    segmenter.look([0, 0])
    boxes = [np.array([[1, 2, 5, 6], [3, 3, 9, 9]], np.float32), np.zeros((0, 4), np.float32)]
    first, second = segment_boxes(segmenter, boxes, refinements=0)
    assert [multimask for multimask, _ in segmenter.asked] == [False]
    assert [one.masks.sum() for one in first] == [25, 49]
    assert second == []


@pytest.mark.parametrize("refinements", [1, 2])
def test_a_refinement_has_the_box_and_the_most_confident_masks_logits(refinements):
    from samjax.evaluation.protocols.boxes import segment_boxes

    segmenter = Scripted(fill)
    segmenter.look([0])
    box = np.array([[1, 2, 5, 6]], np.float32)
    segment_boxes(segmenter, [box], refinements=refinements)
    assert [multimask for multimask, _ in segmenter.asked] == [True] + [False] * refinements
    for number, (_, [[prompt]]) in enumerate(segmenter.asked):
        np.testing.assert_array_equal(prompt.box, box[0])
        if number == 0:
            assert prompt.logits is None
        else:  # `answer` writes a mask's confidence into its first logit
            assert prompt.logits[0, 0] == pytest.approx(0.7 if number == 1 else 0.9)


def test_the_settings_say_which_answer_is_first():
    from samjax.evaluation.protocols.boxes import Boxes

    first = {
        (0, None): "single mask",
        (1, None): "most confident of three",
        (1, False): "single mask",
        (0, True): "most confident of three",
    }
    for (refinements, multimask), expected in first.items():
        protocol = Boxes(refinements=refinements, multimask_first=multimask)
        assert protocol.settings()["first answer"] == expected
        segmenter = Scripted(fill)
        protocol.judge(segmenter, [sample(triangle(4, 7, 10))])
        assert segmenter.asked[0][0] == (expected != "single mask")


def test_pixels_that_are_not_judged_do_not_count():
    from samjax.evaluation.protocols.boxes import Boxes

    object = triangle(10, 10, 10)
    ignore = rectangle(SIZE, 10, 15, 15, 20)  # a quarter of the box, none of it the object
    samples = [sample(object, ignore=ignore), sample(object, name="b", ignore=~(object & False))]
    first, second = Boxes().judge(Scripted(fill), samples)
    assert first["objects"][0]["iou"] == 55 / 75
    assert first["objects"][0]["dice"] == pytest.approx(2 * 55 / (55 + 75))
    assert second["objects"] == []  # all of it is ignored


def test_fewer_than_no_refinement_is_an_error():
    from samjax.evaluation.protocols.boxes import Boxes

    with pytest.raises(ValueError, match="0 or more, got -1"):
        Boxes(refinements=-1)
