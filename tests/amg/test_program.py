"""The device programs of mask generation agree with decoding, upscaling and filtering mask by mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SHAPES, shapes_photo

from samjax import VARIANTS, Embedding, Execution, Prediction, transforms
from samjax.amg.program import (
    Found,
    Judged,
    Limits,
    Region,
    choose,
    decode_survivors,
    frame_of,
    jitted_judge,
    pack_masks,
    point_prompts,
)
from samjax.config import PromptLabel
from samjax.ops.masks import Frame, Measures, measure, pack, unpack

SIZE = (100, 128)
HOW = Execution.for_backend("cpu")
NOTHING_DROPPED = Limits(*np.float32([0, 0, 1, 1]))


@pytest.fixture(scope="module")
def embedding(shapes) -> Embedding:
    return shapes.encode(shapes_photo(*SIZE, seed=5)[0])


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform((0, 0), SIZE[::-1], (7, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def prediction(shapes, embedding, points) -> Prediction:
    """The three masks of every point."""
    return shapes.predict(embedding, point_prompts(jnp.asarray(points)), multimask=True)


@pytest.fixture(scope="module")
def masks(shapes, embedding, prediction) -> np.ndarray:
    """They at the photo's size: (21, H, W), mask m of point p being number 3p + m."""
    return np.asarray(shapes.masks(prediction, embedding)).reshape(-1, *SIZE)


def frame() -> Frame:
    return frame_of(SIZE, SHAPES)._replace(size=np.array(SIZE, np.int32))


def region(points: np.ndarray, count: int) -> Region:
    photo = np.array((0, 0, *SIZE[::-1]), np.float32)
    return Region(jnp.asarray(points), jnp.int32(count), jnp.asarray(photo), jnp.asarray(photo))


def judged(shapes, embedding, points, limits=NOTHING_DROPPED, *, count=7, points_per_batch=3, nms="box") -> Judged:
    some = SHAPES, shapes.params, embedding, region(points, count), frame(), jax.tree.map(jnp.asarray, limits), HOW
    return jax.tree.map(np.asarray, jitted_judge(*some, points_per_batch=points_per_batch, nms=nms))


class TestJudge:
    def test_every_mask_is_measured_as_it_is_at_the_photos_size(self, shapes, embedding, points, prediction, masks):
        found = judged(shapes, embedding, points)
        np.testing.assert_allclose(found.iou[:21], np.ravel(prediction.iou), atol=1e-5)
        assert np.abs(found.measures.area[:21] - masks.sum((1, 2))).max() <= 2  # pixels on the threshold
        for box, mask in zip(found.measures.box, masks, strict=False):
            y, x = np.nonzero(mask)
            extent = (x.min(), y.min(), x.max(), y.max()) if len(x) else (0, 0, 0, 0)
            assert np.abs(box - extent).max() <= 1

    @pytest.mark.parametrize("points_per_batch", [1, 4, 100])
    def test_the_number_of_points_in_a_batch_changes_nothing(self, shapes, embedding, points, points_per_batch):
        one = judged(shapes, embedding, points)
        other = judged(shapes, embedding, points, points_per_batch=points_per_batch)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a[:21], b[:21])

    def test_masks_of_points_that_only_fill_up_do_not_pass(self, shapes, embedding, points):
        found = judged(shapes, embedding, points, count=5)
        assert found.passed[:15].all()
        assert not found.passed[15:].any()

    def test_masks_with_no_higher_predicted_iou_do_not_pass_and_are_not_measured(self, shapes, embedding, points):
        middle = np.float32(np.median(judged(shapes, embedding, points).iou[:21]))
        found = judged(shapes, embedding, points, NOTHING_DROPPED._replace(pred_iou_thresh=middle))
        np.testing.assert_array_equal(found.passed[:21], found.iou[:21] > middle)
        assert 0 < found.passed.sum() < 21
        assert not found.measures.area[~found.passed].any()

    def test_the_bits_at_low_resolution_are_the_masks_without_padding(self, shapes, embedding, points, prediction):
        found = judged(shapes, embedding, points, nms="mask")
        height, width = SHAPES.mask_size
        bits = np.unpackbits(found.bits[:21].view(np.uint8), axis=1, count=height * width)
        expected = np.asarray(prediction.logits).reshape(-1, height, width) > 0
        expected[:, -(-SIZE[0] * height // 128) :] = False  # the photo fills the model input's width
        assert (bits.reshape(-1, height, width) != expected).sum() <= 2
        assert judged(shapes, embedding, points).bits.shape[1] == 0


def candidates(boxes: list, iou: list, stability: list) -> Judged:
    measures = Measures(jnp.ones(len(iou), jnp.int32), jnp.array(boxes, jnp.int32), jnp.array(stability, jnp.float32))
    bits = jnp.zeros((len(iou), 0), jnp.uint32)
    return Judged(jnp.array(iou, jnp.float32), jnp.ones(len(iou), bool), measures, bits)


def numbers_kept(found: Found) -> list[int]:
    return np.asarray(found.ranking)[np.asarray(found.kept)].tolist()


class TestChoose:
    AWAY = ([[30, 30, 50, 50], [30, 60, 50, 80], [70, 30, 90, 50]],)

    def test_masks_are_ranked_by_predicted_iou(self):
        found = choose(
            candidates(*self.AWAY, [0.5, 0.9, 0.7], [1, 1, 1]),
            region(np.zeros((1, 2), np.float32), 1),
            NOTHING_DROPPED,
            nms="box",
        )
        assert numbers_kept(found) == [1, 2, 0]

    def test_unstable_masks_are_dropped(self):
        limits = NOTHING_DROPPED._replace(stability_score_thresh=np.float32(0.5))
        some = candidates(*self.AWAY, [0.5, 0.9, 0.7], [0.5, 0.4, np.nan])
        assert numbers_kept(choose(some, region(np.zeros((1, 2), np.float32), 1), limits, nms="box")) == [0]

    def test_of_equal_boxes_the_better_mask_stays(self):
        limits = NOTHING_DROPPED._replace(nms_thresh=np.float32(0.7))
        some = candidates([[30, 30, 50, 50], [30, 30, 50, 51], [70, 30, 90, 50]], [0.5, 0.9, 0.7], [1, 1, 1])
        assert numbers_kept(choose(some, region(np.zeros((1, 2), np.float32), 1), limits, nms="box")) == [1, 2]

    def test_of_masks_with_equal_bits_the_better_one_stays(self):
        limits = NOTHING_DROPPED._replace(nms_thresh=np.float32(0.8))
        some = candidates(*self.AWAY, [0.5, 0.9, 0.7], [1, 1, 1])
        some = some._replace(bits=jnp.array([[0b1111], [0b1111], [0b110000]], jnp.uint32))
        assert numbers_kept(choose(some, region(np.zeros((1, 2), np.float32), 1), limits, nms="mask")) == [1, 2]

    @pytest.mark.parametrize(("left", "kept"), [(0, False), (20, False), (21, True)])
    def test_masks_that_end_within_20_pixels_of_a_crops_edge_are_cut_off(self, left, kept):
        crop = region(np.zeros((1, 2), np.float32), 1)._replace(
            box=jnp.array([100.0, 0, 300, 200]), photo=jnp.array([0.0, 0, 300, 200])
        )
        # Within the crop's own frame. Its other edges are the photo's, where masks may end.
        found = choose(candidates([[left, 0, 199, 199]], [0.9], [1]), crop, NOTHING_DROPPED, nms="box")
        assert numbers_kept(found) == ([0] if kept else [])


class TestSurvivors:
    def test_each_point_has_the_mask_that_is_asked_for(self, shapes, embedding, points, prediction):
        which = np.array([2, 0, 1, 1, 0, 2, 2], np.int32)
        logits = decode_survivors(SHAPES, shapes.params, embedding, points, which, HOW)
        np.testing.assert_allclose(logits, np.asarray(prediction.logits)[np.arange(7), which], atol=1e-4)

    def test_their_bits_are_the_masks_at_the_photos_size(self, prediction, masks):
        logits = jnp.asarray(prediction.logits).reshape(-1, *SHAPES.mask_size)
        for bits, mask in zip(np.asarray(pack_masks(logits, frame(), HOW)), masks, strict=True):
            part, (x, y) = unpack(bits, SIZE)
            whole = np.zeros(SIZE, bool)
            whole[y : y + part.shape[0], x : x + part.shape[1]] = part
            assert (whole != mask).sum() <= 2


def test_a_point_is_a_prompt_with_the_references_padding_point():
    prompts = point_prompts(jnp.array([[3.0, 4.0], [5.0, 6.0]]))
    np.testing.assert_array_equal(prompts.points, [[[3, 4], [0, 0]], [[5, 6], [0, 0]]])
    np.testing.assert_array_equal(prompts.labels, [[PromptLabel.FOREGROUND, PromptLabel.NOT_A_POINT]] * 2)
    assert prompts.valid.all()


def test_few_programs_serve_photos_of_all_sizes():
    def programs(sizes) -> int:
        frames = [frame_of(tuple(size), VARIANTS["vit_b"]) for size in sizes.tolist()]
        return len({tuple(leaf.shape for leaf in jax.tree.leaves(frame)) for frame in frames})

    random = np.random.default_rng(0)
    assert programs(random.integers(300, 2000, (100, 2))) <= 8
    coco = np.stack([np.full(20, 640), random.integers(300, 641, 20)], 1)
    assert programs(np.concatenate([coco, coco[:, ::-1]])) <= 2


@pytest.mark.parametrize("size", [(100, 128), (300, 90), (70, 260)])
def test_blocks_that_fill_a_frame_up_change_nothing(size):
    config = SHAPES
    logits = jax.random.normal(jax.random.key(1), config.mask_size) * 3
    plain, filled = transforms.upscaling(size, config), frame_of(size, config)
    for one, other in zip(measure(logits, plain, 0.0, 1.0), measure(logits, filled, 0.0, 1.0), strict=True):
        np.testing.assert_array_equal(one, other)
    bits = [pack(logits, frame, 0.0) for frame in (plain, filled)]
    np.testing.assert_array_equal(*[unpack(np.asarray(each), size)[0] for each in bits])
