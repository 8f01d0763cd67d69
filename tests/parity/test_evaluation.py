"""Meta's code and samjax are judged alike: through any predictor one prompt at a time, and in batches."""

import numpy as np
import pytest
from example_models import shapes_photo
from example_segmenters import sample

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def samples():
    import dataclasses

    found = []
    for number, size in enumerate([(48, 64), (64, 40)]):
        rgb, masks = shapes_photo(*size, seed=number, count=3)
        found.append(dataclasses.replace(sample(*masks, name=str(number)), rgb=rgb))
    return found


@pytest.fixture(scope="module")
def segmenters(small):
    """Of one and the same model."""
    from samjax import SamPredictor
    from samjax.evaluation.segmenters import PredictorSegmenter, SamSegmenter

    theirs, sam = small
    return {
        "theirs": PredictorSegmenter(theirs),
        "ours": PredictorSegmenter(SamPredictor(sam)),
        "in batches": SamSegmenter(sam, images_together=2),
    }


def protocols():
    from samjax.evaluation.boxes import Boxes
    from samjax.evaluation.interactive import Interactive
    from samjax.evaluation.points import Points

    return {"interactive": Interactive(clicks=3), "points": Points(points=(1, 2)), "boxes": Boxes(refinements=1)}


@pytest.mark.parametrize("name", ["interactive", "points", "boxes"])
def test_the_reference_and_samjax_get_the_same_results(segmenters, samples, name):
    protocol = protocols()[name]
    results = {}
    kinds = segmenters if name == "boxes" else ("theirs", "in batches")  # each compiles programs of its own
    for kind in kinds:
        segmenter = segmenters[kind]
        groups = [samples] if kind == "in batches" else [[one] for one in samples]
        records = [record for group in groups for record in protocol.judge(segmenter, group)]
        results[kind] = records, protocol.summarise(records).metrics
    expected_records, expected = results["theirs"]
    assert sum(len(record["objects"]) for record in expected_records) >= 4
    for kind in kinds:
        records, metrics = results[kind]
        assert metrics.keys() == expected.keys()
        for metric, value in metrics.items():
            assert value == pytest.approx(expected[metric], abs=1e-3), (kind, metric)
        if name == "interactive":
            clicks = [[entry["clicks"] for entry in record["objects"]] for record in records]
            assert clicks == [[entry["clicks"] for entry in record["objects"]] for record in expected_records]


def test_the_weights_of_a_pytorch_model_are_told_apart(small):
    import torch

    from samjax.evaluation.segmenters import PredictorSegmenter

    theirs, _ = small
    before = PredictorSegmenter(theirs).fingerprint()
    assert before.keys() == {"sha256"}
    bias = theirs.model.mask_decoder.iou_prediction_head.layers[0].bias
    with torch.no_grad():
        bias[0] += 1
        changed = PredictorSegmenter(theirs).fingerprint()
        bias[0] -= 1
    assert changed != before


def test_logits_at_the_photos_size_are_the_references(segmenters, samples):
    from samjax.evaluation.protocol import Prompt

    prompt = Prompt(np.array([[20, 20]], np.float32), np.array([1]))
    theirs = segmenters["theirs"]
    theirs.look([samples[0].rgb])
    [[answer]] = theirs.ask([[prompt]], multimask=True)
    expected, _, _ = theirs.predictor.predict(prompt.points, prompt.labels, return_logits=True)
    full = theirs.full_logits(0, answer.logits)
    assert np.linalg.norm(full - expected) <= 1e-5 * np.linalg.norm(expected)
