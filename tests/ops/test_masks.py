import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samjax.ops import masks, resize

SIZES = [(300, 451), (129, 64), (40, 700), (1, 1)]


def frame_of(size: tuple[int, int], source: tuple[int, int] = (32, 32)) -> masks.Frame:
    rows, columns = (resize.banded(resize.resize_matrix(*sides)) for sides in zip(source, size, strict=True))
    return masks.Frame(rows, columns, np.array(size, np.int32))


def blobs(seed: int) -> np.ndarray:
    """Smooth logits with some ground above zero, some below, and borders that cross the picture's edges."""
    noise = np.random.default_rng(seed).standard_normal((8, 8)).astype(np.float32)
    return np.asarray(jax.image.resize(noise, (32, 32), "cubic")) * 3


def upscaled(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (resize.resize_matrix(*sides) for sides in zip(logits.shape, size, strict=True))
    return (rows @ logits @ columns.T).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_measures_are_those_of_the_upscaled_mask(size):
    for seed in range(3):
        logits = blobs(seed)
        measures = jax.jit(masks.measure)(logits, frame_of(size), 0.0, 0.5)
        full = upscaled(logits, size)
        y, x = np.nonzero(full > 0)
        assert abs(int(measures.area) - len(x)) <= 1e-4 * full.size
        assert measures.box.tolist() == [x.min(), y.min(), x.max(), y.max()] if len(x) else [0, 0, 0, 0]
        outer = (full > -0.5).sum()
        expected = (full > 0.5).sum() / outer if outer else np.nan
        np.testing.assert_allclose(measures.stability, expected, rtol=1e-3)


def test_an_empty_mask_has_no_area_a_box_of_zeros_and_no_stability():
    measures = masks.measure(np.full((32, 32), -9, np.float32), frame_of((50, 50)), 0.0, 1.0)
    assert int(measures.area) == 0
    assert measures.box.tolist() == [0, 0, 0, 0]
    assert np.isnan(measures.stability)


def test_only_the_part_within_the_frames_size_counts():
    logits = np.full((32, 32), 9, np.float32)
    frame = frame_of((200, 200))._replace(size=np.array([70, 130], np.int32))
    measures = masks.measure(logits, frame, 0.0, 1.0)
    assert int(measures.area) == 70 * 130
    assert measures.box.tolist() == [0, 0, 129, 69]
    mask, corner = masks.unpack(np.asarray(masks.pack(logits, frame, 0.0)), (70, 130))
    assert corner == (0, 0)
    assert mask.shape == (70, 130)
    assert mask.all()


@pytest.mark.parametrize("size", SIZES)
def test_bits_unpack_to_the_mask_within_its_box(size):
    full = upscaled(blobs(1), size) > 0
    mask, (x, y) = masks.unpack(np.asarray(jax.jit(masks.pack)(blobs(1), frame_of(size), 0.0)), size)
    placed = np.zeros(size, bool)
    placed[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    assert (placed == full).mean() > 0.9999  # a logit of 0 may round either way
    if mask.size:
        assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def test_an_empty_mask_unpacks_to_nothing():
    mask, corner = masks.unpack(np.zeros((128, 16), np.uint8), (100, 100))
    assert mask.shape == (0, 0)
    assert corner == (0, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_overlaps_are_judged_by_iou(seed, threshold):
    random = np.random.default_rng(seed)
    bits = random.random((5, 64)) < random.choice([0.1, 0.5, 0.9], (5, 1))
    words = np.packbits(bits, axis=1).view(np.uint32)
    both, either = ((bits[:, None] & bits).sum(2), (bits[:, None] | bits).sum(2))
    found = np.asarray(jax.jit(masks.overlaps)(words, words, np.float32(threshold)))
    assert (found == (both > threshold * either + 1e-6)).all()


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 8)), max_size=4))
def test_the_outermost_pixels_of_a_mask_are_its_box(pixels):
    mask = np.zeros((6, 9), bool)
    for y, x in pixels:
        mask[y, x] = True
    ys, xs = zip(*pixels, strict=True) if pixels else ((), ())
    assert masks.outermost(mask) == ((min(xs), min(ys), max(xs), max(ys)) if pixels else None)
