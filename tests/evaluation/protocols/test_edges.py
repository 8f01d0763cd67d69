"""The edge protocol with a scripted segmenter, and with a small model on a real photo."""

import json
import weakref

import numpy as np
import pytest

from samjax.evaluation.datasets import AnnotatedEdges, read_bsds
from samjax.evaluation.protocol import Answer, EvaluationProtocol, Prompt
from samjax.evaluation.protocols.edges import Edges, HumanEdges
from samjax.evaluation.runner import evaluate
from samjax.evaluation.segmenters import SamSegmenter

SIZE = (60, 80)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)


class Circles:
    """Knows one circle a photo; answers it, a hardly different one with less confidence, and nothing."""

    images_together = 2

    def __init__(self, circles: list[tuple[float, float, float]]) -> None:
        self.circles = circles
        self.asked = 0
        self.upscaled: list[int] = []

    def look(self, photos) -> None:
        assert len(photos) == len(self.circles)

    def ask(self, prompts, *, multimask: bool) -> list[list[Answer]]:
        assert multimask
        self.asked += sum(map(len, prompts))
        return [
            [self.answer(circle, prompt) for prompt in own] for circle, own in zip(self.circles, prompts, strict=True)
        ]

    def answer(self, circle, prompt: Prompt) -> Answer:
        y, x, radius = circle
        assert prompt.points.shape == (1, 2)
        assert (prompt.points > 0).all()
        assert (prompt.points < SIZE[::-1]).all()
        logits = np.stack([radius - np.hypot(Y - y, X - x), radius - 0.4 - np.hypot(Y - y, X - x), np.full(SIZE, -9.0)])
        logits = logits.astype(np.float32)
        return Answer(logits > 0, np.array([0.9, 0.8, 0.99], np.float32), logits)

    def full_logits(self, photo: int, logits: np.ndarray) -> np.ndarray:
        self.upscaled += [photo] * len(logits)
        return logits


def photo_of(y: float, x: float, radius: float, name: str = "a") -> AnnotatedEdges:
    """Two people who drew the same circle."""
    circle = np.abs(np.hypot(Y - y, X - x) - radius) < 0.5
    return AnnotatedEdges(
        name, np.zeros((*SIZE, 3), np.uint8), (), (circle, circle), (circle.astype(int), circle.astype(int))
    )


def test_it_is_a_protocol():
    assert isinstance(Edges(), EvaluationProtocol)
    assert json.loads(json.dumps(Edges().settings())) == {
        "points_per_side": 16,
        "nms_threshold": 0.7,
        "tolerance": 0.0075,
        "thresholds": 99,
    }


def test_a_segmenter_that_knows_the_objects_has_their_edges():
    circles = [(30, 40, 18), (28, 38, 12)]
    segmenter, protocol = Circles(circles), Edges(points_per_side=4, tolerance=0.02, points_per_batch=5, processes=1)
    records = protocol.judge(segmenter, [photo_of(*circle, name=str(n)) for n, circle in enumerate(circles)])
    assert segmenter.asked == 2 * 16 + 2  # what is left is asked for again
    assert [record["masks"] for record in records] == [1, 1]  # of 48, with duplicates and empty ones
    assert segmenter.upscaled == [0, 1]
    records = json.loads(json.dumps(records))
    assert len(records[0]["predicted"]) == 99
    summary = protocol.summarise(records)
    assert summary.metrics["ODS"] > 0.97
    assert summary.metrics["OIS"] > 0.97
    assert list(summary.metrics)[:4] == ["ODS", "OIS", "AP", "R50"]
    curve, best = summary.figures[0].curves
    assert (best.x, best.y) == ([summary.metrics["ODS recall"]], [summary.metrics["ODS precision"]])
    assert curve.y == [1.0] * 99  # precision
    assert curve.x == sorted(curve.x, reverse=True)


class Watched(Circles):
    """Counts the answers that are still held when it is asked again."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.given: list[weakref.ref] = []
        self.held: list[int] = []

    def ask(self, prompts, *, multimask: bool) -> list[list[Answer]]:
        self.held.append(sum(answer() is not None for answer in self.given))
        answers = super().ask(prompts, multimask=multimask)
        self.given += [weakref.ref(answer.logits) for own in answers for answer in own]
        return answers


def test_answers_are_not_held_until_all_points_are_asked():
    segmenter = Watched([(30, 40, 18)] * 2)
    Edges(points_per_side=6, points_per_batch=5, processes=1).edges(segmenter, [np.zeros((*SIZE, 3), np.uint8)] * 2)
    assert len(segmenter.held) == 8 + 1
    assert max(segmenter.held) <= 2 * 5  # the latest


def test_a_segmenter_that_is_elsewhere_has_none():
    records = Edges(points_per_side=2, tolerance=0.02, processes=1).judge(
        Circles([(30, 40, 8)]), [photo_of(30, 40, 20)]
    )
    assert Edges().summarise(records).metrics["ODS"] == 0


def test_a_segmenter_that_finds_nothing_has_a_score_of_0():
    protocol = Edges(points_per_side=2, processes=1)
    records = protocol.judge(Circles([(30, 40, -5)]), [photo_of(30, 40, 20)])
    metrics = protocol.summarise(records).metrics
    assert (metrics["ODS"], metrics["AP"], metrics["R50"], metrics["masks per photo"]) == (0, 0, 0, 0)


class TwoPhotos:
    """What the runner takes for a data set."""

    def __len__(self) -> int:
        return 2

    def name(self, index: int) -> str:
        return "ab"[index]

    def __getitem__(self, index: int) -> AnnotatedEdges:
        return photo_of(30, 40, 18, self.name(index))


def test_the_runner_runs_it(tmp_path):
    segmenter = Circles([(30, 40, 18)] * 2)
    arguments = {"data": {"name": "circles"}, "model": {"name": "circles"}, "progress": False}
    outcome = evaluate(
        Edges(points_per_side=2, tolerance=0.02, processes=1), segmenter, TwoPhotos(), tmp_path, **arguments
    )
    assert outcome.judged == 2
    assert outcome.summary.metrics["ODS"] > 0.95
    assert {"results.json", "precision_recall.png"} <= {path.name for path in outcome.files}


def test_settings_that_make_no_sense_are_explained():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Edges(points_per_side=0)
    with pytest.raises(ValueError, match=r"up to 1, got 1\.5"):
        Edges(nms_threshold=1.5)
    with pytest.raises(ValueError, match="not negative, got -1"):
        Edges(tolerance=-1.0)
    with pytest.raises(ValueError, match="at least one process, got 0"):
        Edges(processes=0)


def test_processes_find_what_one_finds():
    samples, segmenter = [photo_of(31, 40, 17)], Circles([(30, 40, 18)])
    serial, pooled = (
        Edges(points_per_side=2, tolerance=0.02, processes=processes).judge(segmenter, samples) for processes in (1, 2)
    )
    assert serial == pooled


def test_people_against_people_need_no_model(tmp_path):
    protocol = HumanEdges()
    assert isinstance(protocol, EvaluationProtocol)
    arguments = {"data": {}, "model": {}, "progress": False}
    assert evaluate(protocol, None, TwoPhotos(), tmp_path, **arguments).summary.metrics["F"] > 0.95
    again = evaluate(protocol, None, TwoPhotos(), tmp_path, **arguments)
    assert (again.judged, again.skipped) == (0, 2)
    circle, elsewhere = photo_of(30, 40, 18).boundaries[0], photo_of(30, 40, 8).boundaries[0]
    alone, apart = (
        AnnotatedEdges("a", np.zeros((*SIZE, 3), np.uint8), (), drawn, (circle.astype(int),) * len(drawn))
        for drawn in ((circle,), (circle, elsewhere))
    )
    records = json.loads(json.dumps(protocol.judge(None, [alone, apart])))
    assert protocol.summarise(records).metrics == {"F": 0, "precision": 0, "recall": 0, "annotators per photo": 1.5}
    with pytest.raises(ValueError, match="no photo has two annotators"):
        protocol.summarise(records[:1])


@pytest.mark.heavy
def test_people_agree_as_published(test_data):
    photos = read_bsds(test_data / "bsds500", "val")
    protocol = HumanEdges()
    records = [protocol.judge(None, [photos[index]])[0] for index in range(len(photos))]
    # Published for the test photos; 0.787 for these.
    assert protocol.summarise(records).metrics["F"] == pytest.approx(0.80, abs=0.03)


def test_a_model_on_a_real_photo(sam, test_data):
    sample = read_bsds(test_data / "bsds500", "val")[0]
    protocol = Edges(points_per_side=2)
    (edges,) = protocol.edges(SamSegmenter(sam), [sample.rgb])
    assert edges.shape == sample.rgb.shape[:2]
    assert edges.min() >= 0
    assert edges.max() <= 1
