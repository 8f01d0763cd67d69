"""Run-length encoding is COCO's."""

import hypothesis.extra.numpy
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from samjax.ops.rle import decode_rle, encode_rle, rle_area, rle_box

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
