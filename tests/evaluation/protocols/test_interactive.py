"""NoC and mean IoU by click: of scripted models with known answers, and of RITM's loop, one object at a time."""

import json

import numpy as np
import pytest
from example_segmenters import Scripted, answer, paint, part, rectangle, ritm, sample

SIZE = (40, 60)
# Ten rows of ten pixels each: every IoU with two digits is exact.
OBJECTS = [rectangle(SIZE, 2, 12, left, left + 10) for left in (2, 14, 26)]
# IoU after each click, of which the last goes on.
SCRIPT = [
    [0.5, 0.85, 0.9],  # reaches the thresholds by the second, second and third click
    [0.3, 0.8, 0.7, 0.84],  # the first threshold only, and leaves it again
    [0.89, 0.89, 0.89, 0.89, 0.95],
]


def by_script(photo, prompt, multimask):
    """Which object is meant the first click says."""
    x, y = prompt.points[0].astype(int)
    number = next(i for i, mask in enumerate(OBJECTS) if mask[y, x])
    share = SCRIPT[number][min(len(prompt.points), len(SCRIPT[number])) - 1]
    good = part(OBJECTS[number], share)
    return answer(~good, good, good & False, iou=[0.1, 0.8, 0.7]) if multimask else answer(good)


@pytest.fixture
def protocol():
    from samjax.evaluation.protocols.interactive import Interactive

    return Interactive()


@pytest.fixture
def record(protocol):
    [record] = protocol.judge(Scripted(by_script), [sample(*OBJECTS, categories=[7, 8, 9])])
    return record


def test_noc_of_scripted_answers_is_known(protocol, record):
    metrics = protocol.summarise([record]).metrics
    assert metrics["NoC@80"] == pytest.approx((2 + 2 + 1) / 3)
    assert metrics["NoC@85"] == pytest.approx((2 + 20 + 1) / 3)
    assert metrics["NoC@90"] == pytest.approx((3 + 20 + 5) / 3)
    assert [metrics[f"failures@{t} (objects)"] for t in (80, 85, 90)] == [0, 1, 1]
    assert metrics["objects"] == 3


def test_mean_iou_by_click_is_known(protocol, record):
    summary = protocol.summarise([record])
    expected = {1: 0.5 + 0.3 + 0.89, 2: 0.85 + 0.8 + 0.89, 3: 0.9 + 0.7 + 0.89, 5: 0.9 + 0.84 + 0.95}
    for number, total in expected.items():
        assert summary.metrics[f"mIoU@{number}"] == pytest.approx(total / 3)
    assert summary.metrics["mIoU@20"] == summary.metrics["mIoU@10"] == summary.metrics["mIoU@5"]
    [figure] = summary.figures
    assert figure.curves[0].x == range(1, 21)
    assert figure.curves[0].y[:2] == pytest.approx([(0.5 + 0.3 + 0.89) / 3, (0.85 + 0.8 + 0.89) / 3])


def test_a_record_is_json_with_one_entry_an_object(record):
    assert json.loads(json.dumps(record)) == record
    assert [(entry["id"], entry["category"], entry["area"]) for entry in record["objects"]] == [
        (1, 7, 100),
        (2, 8, 100),
        (3, 9, 100),
    ]
    assert [len(entry["iou"]) for entry in record["objects"]] == [20, 20, 20]
    assert 10 < len(record["objects"][0]["clicks"]) < 20  # the ten pixels that stay wrong are clicked once each
    assert record["objects"][0]["clicks"][0] == [6, 6, 1]  # the first pixel of the middle


def test_a_failure_counts_all_clicks_and_the_last_click_is_no_failure():
    from samjax.evaluation.protocols.interactive import Interactive, noc

    assert noc([0.1, 0.9, 0.2], 0.9) == 2
    assert noc([0.1, 0.2, 0.9], 0.9) == 3
    assert noc([0.1, 0.2, 0.3], 0.9) == 3
    entries = [
        {"id": i, "category": None, "area": 5, "iou": [0.1, iou], "clicks": [[0, 0, 1]]}
        for i, iou in enumerate((0.9, 0.3))
    ]
    record = {"objects": entries, "encode_seconds": 0.0, "click_seconds": 1.0}
    metrics = Interactive(clicks=2).summarise([record]).metrics
    assert (metrics["NoC@90"], metrics["failures@90 (objects)"]) == (2, 1)
    assert "mIoU@3" not in metrics


def one_by_one(target, judged, clicks, size):
    """RITM's loop for one object, from its definition: IoU after each click."""
    from samjax.evaluation.protocol import Prompt

    prediction, clicked, logits, ious = np.zeros(size, bool), [], None, []
    for number in range(clicks):
        clicked.append(ritm(target, prediction, clicked, judged))
        points = np.array([click[:2] for click in clicked], np.float32)
        labels = np.array([click[2] for click in clicked], np.int64)
        found = paint(Prompt(points, labels, logits=logits), size, number == 0)
        best = int(found.iou.argmax())
        prediction, logits = found.masks[best], found.logits[best]
        ious.append(((prediction & target & judged).sum()) / ((prediction | target) & judged).sum())
    return ious, [[x, y, int(positive)] for x, y, positive in clicked]


@pytest.fixture
def photos():
    """Three photos of different sizes; the second has nothing to click, in the third a band is not judged."""
    wide = [rectangle(SIZE, 5, 35, 5, 22), rectangle(SIZE, 8, 30, 30, 55), rectangle(SIZE, 0, 3, 0, 60)]
    tall = [rectangle((50, 20), 4, 44, 3, 17), rectangle((50, 20), 10, 20, 8, 12)]
    empty = sample(np.zeros((9, 9), bool), name="b")
    return [sample(*wide), empty, sample(*tall, name="c", ignore=rectangle((50, 20), 20, 26, 0, 20))], wide, tall


@pytest.mark.parametrize("pixels", [2**26, 3 * 2 * 40 * 60])
def test_all_objects_of_all_photos_are_clicked_as_if_each_were_alone(photos, pixels, monkeypatch):
    from samjax.evaluation import judged_objects
    from samjax.evaluation.protocols.interactive import Interactive

    monkeypatch.setattr(judged_objects, "PIXELS_TOGETHER", pixels)  # few at a time, or all
    samples, wide, tall = photos
    sizes = [one.rgb.shape[:2] for one in samples]
    segmenter = Scripted(lambda photo, prompt, multimask: paint(prompt, sizes[photo], multimask))
    first, second, third = Interactive(clicks=6).judge(segmenter, samples)
    assert second["objects"] == []
    assert [entry["id"] for entry in first["objects"]] == [1, 2, 3]
    band = ~rectangle((50, 20), 20, 26, 0, 20)
    for entry, target in zip(first["objects"] + third["objects"], wide + tall, strict=True):
        judged = np.ones(SIZE, bool) if target.shape == SIZE else band
        ious, clicks = one_by_one(target, judged, 6, target.shape)
        assert entry["clicks"] == clicks
        assert entry["iou"] == pytest.approx(ious)
    groups = 2 if pixels < 2**20 else 1
    assert segmenter.looks == [3]
    assert len(segmenter.asked) == 6 * groups
    assert [multimask for multimask, _ in segmenter.asked] == ([True] + 5 * [False]) * groups


def test_a_perfect_mask_is_not_asked_about_again(protocol):
    first, second = OBJECTS[:2]

    def perfect(photo, prompt, multimask):
        done = first if first[tuple(prompt.points[0].astype(int)[::-1])] else part(second, 0.5)
        return answer(done)

    segmenter = Scripted(perfect)
    [record] = protocol.judge(segmenter, [sample(first, second)])
    assert record["objects"][0]["iou"] == [1.0] * 20
    assert len(record["objects"][0]["clicks"]) == 1
    assert [len(prompts[0]) for _, prompts in segmenter.asked] == [2] + [1] * 19


def test_the_first_answer_may_be_a_single_mask():
    from samjax.evaluation.protocols.interactive import Interactive

    segmenter = Scripted(by_script)
    protocol = Interactive(clicks=2, multimask_first=False)
    protocol.judge(segmenter, [sample(*OBJECTS)])
    assert [multimask for multimask, _ in segmenter.asked] == [False, False]
    assert protocol.settings()["first answer"] == "single mask"
    assert Interactive().settings()["first answer"] == "most confident of three"
    assert json.loads(json.dumps(protocol.settings())) == protocol.settings()


def test_sizes_are_cocos():
    from samjax.evaluation.metrics.object_records import by_size

    areas = (1023, 1024, 9215, 9216)
    sizes = by_size([{"area": area} for area in areas])
    assert {size: [entry["area"] for entry in inside] for size, inside in sizes.items()} == {
        "small": [1023],
        "medium": [1024, 9215],
        "large": [9216],
    }


def test_nothing_to_judge_is_an_error(protocol):
    with pytest.raises(ValueError, match="no object to be judged"):
        protocol.summarise([{"objects": [], "encode_seconds": 0.0, "click_seconds": 0.0}])


def test_masks_of_another_size_than_the_photo_are_an_error(protocol):
    import dataclasses

    wrong = dataclasses.replace(sample(OBJECTS[0]), rgb=np.zeros((60, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"object 1 of a is for \(40, 60\) pixels .* the photo has \(60, 40\)"):
        protocol.judge(Scripted(by_script), [wrong])


@pytest.mark.parametrize(
    ("options", "message"), [({"clicks": 0}, "at least one click"), ({"thresholds": (90.0,)}, "up to 1")]
)
def test_impossible_settings_are_explained(options, message):
    from samjax.evaluation.protocols.interactive import Interactive

    with pytest.raises(ValueError, match=message):
        Interactive(**options)
