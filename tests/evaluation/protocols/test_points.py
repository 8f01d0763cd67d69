"""SAM's points: which masks are judged, which is carried on, and what of it is known by hand."""

import json

import numpy as np
import pytest
from example_segmenters import Scripted, answer, part, rectangle, sample

SIZE = (40, 60)
OBJECTS = [rectangle(SIZE, 2, 12, left, left + 10) for left in (2, 14, 26)]
# IoU of the three masks of the first point, the second being the most confident; then of the single mask.
FIRST = [[0.4, 0.6, 0.9], [0.1, 0.2, 0.3], [0.5, 0.7, 0.1]]
LATER = [0.8, 0.3, 0.75]
CONFIDENCE = [0.6, 0.5, 0.9]  # of the second mask: of the same order as 0.6, 0.2, 0.7 of its IoU


def by_script(photo, prompt, multimask):
    x, y = prompt.points[0].astype(int)
    number = next(i for i, mask in enumerate(OBJECTS) if mask[y, x])
    shares = FIRST[number] if multimask else [LATER[number]]
    masks = [part(OBJECTS[number], share) for share in shares]
    return answer(*masks, iou=[0.1, CONFIDENCE[number], 0.2] if multimask else [1 - CONFIDENCE[number]])


@pytest.fixture
def segmenter():
    return Scripted(by_script)


@pytest.fixture
def protocol():
    from samjax.evaluation.protocols.points import Points

    return Points(points=(1, 3))


@pytest.fixture
def record(protocol, segmenter):
    [record] = protocol.judge(segmenter, [sample(*OBJECTS)])
    return record


def test_one_point_asks_for_three_masks_and_the_most_confident_is_judged(protocol, record):
    metrics = protocol.summarise([record]).metrics
    assert metrics["mIoU@1"] == pytest.approx((0.6 + 0.2 + 0.7) / 3)
    assert metrics["best of 3@1"] == pytest.approx((0.9 + 0.3 + 0.7) / 3)
    assert metrics["mIoU@1 small"] == metrics["mIoU@1"]
    assert "mIoU@1 large" not in metrics


def test_several_points_ask_for_one_mask_and_for_three_to_choose_from(protocol, record):
    metrics = protocol.summarise([record]).metrics
    assert metrics["mIoU@3"] == pytest.approx((0.8 + 0.3 + 0.75) / 3)
    assert metrics["best of 3@3"] == pytest.approx((0.9 + 0.3 + 0.75) / 3)


def test_the_numbers_between_are_asked_for_and_not_judged(segmenter, record):
    assert [multimask for multimask, _ in segmenter.asked] == [True, False, False, True]
    assert [len(prompts[0][0].points) for _, prompts in segmenter.asked] == [1, 2, 3, 3]
    assert [len(entry["answers"]) for entry in record["objects"]] == [2, 2, 2]


def test_the_most_confident_masks_logits_go_along_with_the_next_points(segmenter, record):
    logits = [prompts[0][2].logits for _, prompts in segmenter.asked]
    assert logits[0] is None
    # `answer` writes a mask's confidence into its first logit; those of choosing from three are not carried on
    assert [float(array[0, 0]) for array in logits[1:]] == pytest.approx([0.9, 0.1, 0.1])


def test_the_rank_correlation_of_predicted_and_true_iou_is_known(protocol, record):
    metrics = protocol.summarise([record]).metrics
    assert metrics["Spearman@1 (predicted, true IoU)"] == pytest.approx(1)
    # confidences 0.4, 0.5, 0.1 for 0.8, 0.3, 0.75: ranks 2 3 1 and 3 1 2
    assert metrics["Spearman@3 (predicted, true IoU)"] == pytest.approx(-0.5)


def test_a_rank_correlation_of_equals_is_left_out(protocol):
    [record] = protocol.judge(Scripted(by_script), [sample(OBJECTS[0])])
    assert not [name for name in protocol.summarise([record]).metrics if "Spearman" in name]


def test_dice_and_boundary_iou_are_those_of_the_mask_that_is_judged(protocol, record):
    from samjax.evaluation.metrics import overlap

    metrics = protocol.summarise([record]).metrics
    masks = [part(mask, shares[1]) for mask, shares in zip(OBJECTS, FIRST, strict=True)]
    pairs = list(zip(OBJECTS, masks, strict=True))
    assert metrics["Dice@1"] == pytest.approx(np.mean([2 * iou / (1 + iou) for iou in (0.6, 0.2, 0.7)]))
    assert metrics["boundary IoU@1"] == pytest.approx(np.mean([overlap.boundary_iou(*pair) for pair in pairs]))


def test_a_record_is_json(protocol, record):
    assert json.loads(json.dumps(record)) == record
    assert json.loads(json.dumps(protocol.settings())) == protocol.settings()
    [figure] = protocol.summarise([record]).figures
    assert [curve.label for curve in figure.curves] == ["most confident", "best of three"]
    assert list(figure.curves[0].x) == [1, 3]


def test_the_next_point_is_the_middle_of_all_that_is_wrong_together():
    from samjax.evaluation.protocols.points import Points

    # A mask beside the object: 3 columns missed and 3 wrongly taken are 6 columns of error.
    target, beside = rectangle(SIZE, 2, 18, 5, 8), rectangle(SIZE, 2, 18, 8, 11)
    segmenter = Scripted(lambda photo, prompt, multimask: answer(beside))
    [record] = Points(points=(2,)).judge(segmenter, [sample(target)])
    assert record["objects"][0]["points"] == [[6, 3, 1], [7, 4, 1]]
    [prompt] = segmenter.asked[-1][1][0]
    assert prompt.points.tolist() == [[6, 3], [7, 4]]
    assert prompt.labels.tolist() == [1, 1]


def test_an_object_without_error_keeps_its_answer():
    from samjax.evaluation.protocols.points import Points

    def right_by_two(photo, prompt, multimask):
        mask = OBJECTS[0] if len(prompt.points) > 1 else part(OBJECTS[0], 0.5)
        return answer(mask, mask, mask) if multimask else answer(mask, iou=[0.25])

    segmenter = Scripted(right_by_two)
    [record] = Points(points=(1, 3, 9)).judge(segmenter, [sample(OBJECTS[0])])
    assert len(segmenter.asked) == 2
    answers = record["objects"][0]["answers"]
    assert [one["iou"] for one in answers] == [0.5, 1, 1]
    assert [one["best_iou"] for one in answers] == [0.5, 1, 1]
    assert [one["predicted"] for one in answers] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize("points", [(), (0, 1), (3, 1), (1, 1)])
def test_impossible_numbers_of_points_are_explained(points):
    from samjax.evaluation.protocols.points import Points

    with pytest.raises(ValueError, match="each once and rising"):
        Points(points=points)
