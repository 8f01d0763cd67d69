"""Masks as cells, by the definition."""

import numpy as np
import pytest
from example_models import SMALL, with_patches

from samjax.train.batch import cell_ratio, pack_cells


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_bit_number_ratio_y_plus_x_is_pixel_y_x(ratio, order):
    masks = np.asarray(np.random.default_rng(0).random((3, 6 * ratio, 7 * ratio)) < 0.5, order=order)
    cells = pack_cells(masks, ratio)
    assert cells.shape == (3, 6, 7)
    assert cells.dtype == {1: np.uint8, 2: np.uint8, 3: np.uint16, 4: np.uint16, 5: np.uint32}[ratio]
    assert cells.flags.c_contiguous
    for n, row, column in np.ndindex(cells.shape):
        for y, x in np.ndindex(ratio, ratio):
            bit = int(cells[n, row, column]) >> (ratio * y + x) & 1
            assert bit == masks[n, row * ratio + y, column * ratio + x]


def test_cells_are_a_quarter_of_a_patch():
    assert cell_ratio(SMALL) == 2
    with pytest.raises(ValueError, match="multiple of 4, because masks have 4 x 4 cells a patch; got 14"):
        cell_ratio(with_patches(SMALL, 70, 14))
    with pytest.raises(ValueError, match="at most 5 x 5 pixels"):
        cell_ratio(with_patches(SMALL, 96, 24))
