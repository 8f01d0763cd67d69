"""Meta's code and samjax are judged alike: through any predictor one prompt at a time, and in batches."""

import numpy as np
import pytest

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def samples(test_data):
    """Two photos of real things, three objects each."""
    from samjax.evaluation.datasets import Chosen, open_dataset

    dataset = Chosen(open_dataset(f"sa1b={test_data / 'sa_mini' / 'val'}"), objects_per_image=3, min_area=400, seed=0)
    return [dataset[0], dataset[1]]


@pytest.fixture(scope="module")
def segmenters(bundled, segment_anything):
    """Of one and the same model."""
    from samjax import SamPredictor
    from samjax.evaluation.segmenters import PredictorSegmenter, SamSegmenter

    reference, sam = bundled
    return {
        "theirs": PredictorSegmenter(segment_anything.SamPredictor(reference)),
        "ours": PredictorSegmenter(SamPredictor(sam)),
        "in batches": SamSegmenter(sam, images_together=2),
    }


def protocols():
    from samjax.evaluation.protocols.boxes import Boxes
    from samjax.evaluation.protocols.interactive import Interactive
    from samjax.evaluation.protocols.points import Points
    from samjax.evaluation.protocols.proposals import Proposals

    return {
        "interactive": Interactive(clicks=3),
        "points": Points(points=(1, 2)),
        "boxes": Boxes(refinements=1),
        "proposals": Proposals(points_per_side=4),
    }


@pytest.mark.parametrize("name", protocols())
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
    assert expected["objects"] == 6
    for kind in kinds:
        records, metrics = results[kind]
        assert metrics.keys() == expected.keys()
        for metric, value in metrics.items():
            assert value == pytest.approx(expected[metric], abs=1e-3, nan_ok=True), (kind, metric)
        if name == "interactive":
            clicks = [[entry["clicks"] for entry in record["objects"]] for record in records]
            assert clicks == [[entry["clicks"] for entry in record["objects"]] for record in expected_records]


def test_proposals_are_the_same_masks_in_the_same_order(segmenters, samples):
    from samjax.evaluation.protocols.proposals import Proposals
    from samjax.ops.rle import rle_iou

    protocol = Proposals(points_per_side=4)
    expected, expected_scores = protocol.propose(segmenters["theirs"], samples[0])
    masks, scores = protocol.propose(segmenters["in batches"], samples[0])
    assert len(masks) == len(expected) >= 8
    order, expected_order = np.argsort(-scores, kind="stable"), np.argsort(-expected_scores, kind="stable")
    np.testing.assert_allclose(scores[order], expected_scores[expected_order], atol=1e-3)
    overlap = rle_iou([masks[i] for i in order], [expected[i] for i in expected_order])
    assert overlap.diagonal().min() > 0.99


def test_edges_are_the_same(segmenters, samples):
    from samjax.evaluation.protocols.edges import Edges

    protocol = Edges(points_per_side=4)
    photos = [sample.rgb for sample in samples]
    for edges, expected in zip(
        protocol.edges(segmenters["in batches"], photos), protocol.edges(segmenters["theirs"], photos), strict=True
    ):
        assert (expected > 0).sum() > 500
        assert ((edges > 0) != (expected > 0)).sum() <= 0.01 * (expected > 0).sum()
        np.testing.assert_allclose(
            edges[(edges > 0) & (expected > 0)], expected[(edges > 0) & (expected > 0)], atol=5e-3
        )


def test_the_weights_of_a_pytorch_model_are_told_apart(segmenters):
    import torch

    theirs = segmenters["theirs"]
    before = theirs.fingerprint()
    assert before.keys() == {"sha256"}
    bias = theirs.predictor.model.mask_decoder.iou_prediction_head.layers[0].bias
    with torch.no_grad():
        kept = bias[0].clone()
        bias[0] += 1
        changed = theirs.fingerprint()
        bias[0] = kept
    assert changed != before
    assert theirs.fingerprint() == before


def test_logits_at_the_photos_size_are_the_references(segmenters, samples):
    from samjax.evaluation.protocol import Prompt

    height, width = samples[0].rgb.shape[:2]
    prompt = Prompt(np.array([[width / 2, height / 2]], np.float32), np.array([1]))
    theirs = segmenters["theirs"]
    theirs.look([samples[0].rgb])
    [[answer]] = theirs.ask([[prompt]], multimask=True)
    expected, _, _ = theirs.predictor.predict(prompt.points, prompt.labels, return_logits=True)
    full = theirs.full_logits(0, answer.logits)
    assert np.linalg.norm(full - expected) <= 1e-5 * np.linalg.norm(expected)
