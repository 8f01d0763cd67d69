"""Run-length encoding is COCO's."""

import hypothesis.extra.numpy
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from samjax.ops.rle import (
    clip_rle,
    decode_rle,
    decode_within_box,
    encode_placed,
    encode_rle,
    foreground_runs,
    inclusive_box,
    rle_area,
    rle_box,
    rle_iou,
    run_lengths,
    union_rle,
)

masks = hypothesis.extra.numpy.arrays(bool, st.tuples(st.integers(1, 17), st.integers(1, 17)))


def runs_down_the_columns(mask: np.ndarray) -> list[int]:
    """COCO's definition written out: lengths of runs in column order, background first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int), [0]])))
    lengths = np.diff(np.concatenate([[0], edges])).tolist()
    rest = len(flat) - sum(lengths)
    return [*lengths, rest] if rest else lengths


@given(masks)
def test_encoding_and_decoding_give_the_mask_back(mask):
    rle = encode_rle(mask)
    assert rle["size"] == list(mask.shape)
    assert isinstance(rle["counts"], str)
    np.testing.assert_array_equal(decode_rle(rle), mask)


@given(masks)
def test_uncompressed_runs_go_down_the_columns_and_start_with_background(mask):
    np.testing.assert_array_equal(decode_rle({"size": list(mask.shape), "counts": runs_down_the_columns(mask)}), mask)


@given(masks)
def test_area_and_box_are_those_of_the_pixels(mask):
    rle = encode_rle(mask)
    assert rle_area(rle) == mask.sum()
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        expected = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        assert rle_box(rle) == expected
    else:
        assert rle_box(rle) == [0, 0, 0, 0]


@given(masks, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_mask_placed_in_a_frame_is_that_frame_encoded(mask, left, top, right, bottom):
    frame = np.pad(mask, ((top, bottom), (left, right)))
    assert encode_placed(mask, (left, top), frame.shape) == encode_rle(frame)


@given(masks)
def test_run_lengths_are_read_from_the_compressed_text(mask):
    assert run_lengths(encode_rle(mask)).tolist() == runs_down_the_columns(mask)


def test_run_lengths_may_be_longer_than_the_ones_before():
    # Differences of any sign and size: the text has one to seven digits a number.
    for lengths in ([3, 1, 100_000, 1, 5], [0, 70_000_000, 1, 40_000_000, 3, 2, 90_000_000], [16, 15, 16, 32, 48, 1]):
        size = [1, sum(lengths)]
        compressed = coco.frPyObjects({"size": size, "counts": lengths}, *size)
        assert run_lengths({"size": size, "counts": compressed["counts"].decode()}).tolist() == lengths


@given(masks)
def test_foreground_runs_paint_the_mask(mask):
    flat = np.zeros(mask.size, bool)
    for start, end in foreground_runs(encode_rle(mask)):
        flat[start:end] = True
    np.testing.assert_array_equal(flat.reshape(mask.shape[::-1]).T, mask)


@given(masks)
def test_inclusive_boxes_name_the_outermost_pixels(mask):
    x0, y0, x1, y1 = inclusive_box(encode_rle(mask))
    if mask.any():
        assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
        assert mask[[y0, y1]].any(1).all()
        assert mask[:, [x0, x1]].any(0).all()
    else:
        assert (x0, y0, x1, y1) == (0, 0, 0, 0)


@given(masks)
def test_the_part_within_the_box_is_cut_out(mask):
    part, (x0, y0) = decode_within_box(encode_rle(mask))
    frame = np.zeros_like(mask)
    frame[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
    np.testing.assert_array_equal(frame, mask)
    assert not part.size or (part[[0, -1]].any(1).all() and part[:, [0, -1]].any(0).all())


@given(masks, st.data())
def test_clipping_keeps_what_lies_in_the_box(mask, data):
    height, width = mask.shape
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    expected = np.zeros_like(mask)
    expected[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    np.testing.assert_array_equal(decode_rle(clip_rle(encode_rle(mask), (x0, y0, x1, y1))), expected)


@given(st.integers(0, 2**32 - 1))
def test_union_and_iou_are_those_of_the_pixels(seed):
    a, b = np.random.default_rng(seed).random((2, 9, 7)) < 0.4
    rles = [encode_rle(a), encode_rle(b)]
    np.testing.assert_array_equal(decode_rle(union_rle(rles)), a | b)
    expected = [[(x & y).sum() / max((x | y).sum(), 1) for y in (a, b)] for x in (a, b)]
    np.testing.assert_allclose(rle_iou(rles, rles), expected)
    assert rle_iou([], rles).shape == (0, 2)
