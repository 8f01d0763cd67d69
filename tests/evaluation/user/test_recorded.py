"""The recorded user: clicks in their order, whatever the model answers; objects without clicks are only counted."""

import dataclasses
import json

import numpy as np
import pytest
from example_segmenters import Scripted, answer, part, rectangle, sample

from samjax.readers.record import Click, Record

SIZE = (40, 60)
OBJECTS = [rectangle(SIZE, 2, 12, left, left + 10) for left in (2, 14, 26)]
CLICKS = [
    (Click(5.5, 6.25, 1), Click(40, 30, 0), Click(3, 3, 1)),
    (),
    (Click(30, 10, 1),),
]
SHARES = {0: [0.5, 0.8, 0.95], 2: [0.6]}  # IoU after each click


def clicked(*clicks, name="a"):
    plain = sample(*OBJECTS, name=name)
    objects = (dataclasses.replace(one, clicks=own) for one, own in zip(plain.objects, clicks, strict=True))
    return dataclasses.replace(plain, objects=tuple(objects))


def by_script(photo, prompt, multimask):
    """Which object is meant the first click says; of three masks the second is the most confident."""
    x, y = prompt.points[0].astype(int)
    number = next(i for i, mask in enumerate(OBJECTS) if mask[y, x])
    good = part(OBJECTS[number], SHARES[number][len(prompt.points) - 1])
    return answer(~good, good, good & False, iou=[0.1, 0.8, 0.7]) if multimask else answer(good)


@pytest.fixture
def segmenter():
    return Scripted(by_script)


@pytest.fixture(params=["interactive", "points"])
def protocol(request):
    from samjax.evaluation.protocols.interactive import Interactive
    from samjax.evaluation.protocols.points import Points

    return Interactive(clicks=5, user="recorded") if request.param == "interactive" else Points((1, 2, 5), "recorded")


def test_the_model_sees_the_recorded_clicks_so_far_and_the_logits_before(protocol, segmenter):
    protocol.judge(segmenter, [clicked(*CLICKS)])
    carried = [  # what points chooses the best of three from is asked besides
        [one for one in prompts[0] if len(one.points) == number]
        for number, (multimask, prompts) in enumerate(
            [call for call in segmenter.asked if not call[0] or len(call[1][0][0].points) == 1], 1
        )
    ]
    assert [len(own) for own in carried] == [2, 1, 1]
    for number, own in enumerate(carried, 1):
        np.testing.assert_array_equal(own[0].points, [click[:2] for click in CLICKS[0][:number]])
        assert own[0].labels.tolist() == [1, 0, 1][:number]
    assert carried[0][0].logits is None
    np.testing.assert_array_equal(carried[0][1].points, [[30, 10]])
    # `answer` writes a mask's confidence into its first logit
    assert [float(own[0].logits[0, 0]) for own in carried[1:]] == pytest.approx([0.8, 0.5])


def test_iou_follows_each_click_and_stays_when_clicks_end(segmenter):
    from samjax.evaluation.protocols.interactive import Interactive

    protocol = Interactive(clicks=5, user="recorded")
    [record] = protocol.judge(segmenter, [clicked(*CLICKS)])
    assert json.loads(json.dumps(record)) == record
    assert record["without_clicks"] == 1
    assert [entry["id"] for entry in record["objects"]] == [1, 3]
    assert record["objects"][0]["clicks"] == [[5.5, 6.25, 1], [40, 30, 0], [3, 3, 1]]
    assert record["objects"][0]["iou"] == pytest.approx([0.5, 0.8, 0.95, 0.95, 0.95])
    assert record["objects"][1]["iou"] == pytest.approx([0.6] * 5)
    metrics = protocol.summarise([record]).metrics
    assert metrics["mIoU@1"] == pytest.approx((0.5 + 0.6) / 2)
    assert metrics["mIoU@2"] == pytest.approx((0.8 + 0.6) / 2)
    assert metrics["mIoU at the last click"] == pytest.approx((0.95 + 0.6) / 2)
    assert metrics["clicks (mean number)"] == 2
    assert metrics["NoC@90"] == (3 + 5) / 2
    assert (metrics["objects"], metrics["objects not made by clicks alone, left out"]) == (2, 1)


def test_no_more_clicks_are_made_than_asked_for(segmenter):
    from samjax.evaluation.protocols.interactive import Interactive

    [record] = Interactive(clicks=2, user="recorded").judge(segmenter, [clicked(*CLICKS)])
    assert record["objects"][0]["clicks"] == [[5.5, 6.25, 1], [40, 30, 0]]
    assert record["objects"][0]["iou"] == pytest.approx([0.5, 0.8])


def test_an_object_keeps_its_answer_when_its_points_end(segmenter):
    from samjax.evaluation.protocols.points import Points

    protocol = Points((1, 2, 5), "recorded")
    [record] = protocol.judge(segmenter, [clicked(*CLICKS)])
    answers = [[one["iou"] for one in entry["answers"]] for entry in record["objects"]]
    assert answers == [pytest.approx([0.5, 0.8, 0.95]), pytest.approx([0.6] * 3)]
    metrics = protocol.summarise([record]).metrics
    assert metrics["mIoU@5"] == pytest.approx((0.95 + 0.6) / 2)
    assert (metrics["objects"], metrics["objects not made by clicks alone, left out"]) == (2, 1)


def test_photos_without_clicks_are_not_looked_at(protocol, segmenter):
    first, second = protocol.judge(segmenter, [clicked((), (), (), name="b"), clicked(*CLICKS)])
    assert segmenter.looks == [1]
    assert (first["objects"], first["without_clicks"], second["without_clicks"]) == ([], 3, 1)
    assert protocol.summarise([first, second]).metrics["objects not made by clicks alone, left out"] == 4


def test_data_without_any_click_are_an_error(protocol, segmenter):
    records = protocol.judge(segmenter, [clicked((), (), ())] * 2)
    assert segmenter.asked == []
    with pytest.raises(ValueError, match=r"no object with recorded .* 6 object\(s\) of 2 photo\(s\) have none, or"):
        protocol.summarise(records)


def test_the_results_say_who_clicked_and_those_of_the_simulated_user_are_as_they_were(protocol, segmenter):
    simulated = dataclasses.replace(protocol, user="simulated")
    recorded, plain = protocol.settings(), simulated.settings()
    differing = {name for name in {**plain, **recorded} if plain.get(name) != recorded.get(name)}
    assert len(differing) == 1
    [name] = differing
    assert recorded[name] == "recorded"
    assert plain[name] in ("RITM", "SAM: farthest from the error region's boundary, not where one was")
    assert dataclasses.replace(protocol, user="simulated") == type(protocol)(next(iter(vars(protocol).values())))


def test_an_unknown_user_is_refused():
    from samjax.evaluation.user.recorded import check_user

    with pytest.raises(ValueError, match="the user is simulated or recorded, got 'somebody'"):
        check_user("somebody")


def test_annotated_photos_keep_the_clicks_of_their_objects():
    from samjax.evaluation.datasets.annotated import AnnotatedPhotos

    class One:
        def __init__(self, clicks):
            self.clicks = clicks

        def __len__(self):
            return 1

        def name(self, index):
            return "one"

        def __getitem__(self, index):
            plain = sample(*OBJECTS)
            masks = tuple(found.mask for found in plain.objects)
            return Record("one", plain.rgb, masks, clicks=self.clicks)

    for clicks, expected in ((tuple(CLICKS), CLICKS), ((), [(), (), ()])):
        assert [found.clicks for found in AnnotatedPhotos(One(clicks))[0].objects] == expected
