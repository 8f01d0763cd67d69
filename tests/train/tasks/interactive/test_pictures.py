"""Pictures of predictions: the right photos, masks and prompts in the right columns."""

import numpy as np
import pytest
from example_batches import photos
from example_models import shapes_sam
from scipy import ndimage

from samjax.visualise import PALETTE


@pytest.fixture(scope="module")
def drawn():
    from samjax.train.tasks.interactive.pictures import picture

    batch, model = photos(), shapes_sam()
    return batch, picture(model.config, model.params, batch, model.execution)


def cells(picture):
    """The 128 x 128 pixels of each photo in the picture, by row and column."""
    gap, title, between = 4, 22, 6
    rows = range(title, picture.shape[0], 128 + between)
    columns = range(0, picture.shape[1], 128 + gap)
    return [[picture[top : top + 128, left : left + 128] for left in columns] for top in rows]


def test_there_is_a_row_for_each_photo_with_a_mask(drawn):
    batch, picture = drawn
    rows = cells(picture)
    assert [len(row) for row in rows] == [5, 5, 5]
    np.testing.assert_array_equal(rows[0][0], batch.image[0])
    np.testing.assert_array_equal(rows[1][0][:, :96], batch.image[1][:, :96])
    assert (rows[1][0][:, 96:] == 255).all()  # what stands in the padding is not shown


def test_the_target_is_tinted_and_nothing_else(drawn):
    from samjax.train.batch import unpack_cells

    batch, picture = drawn
    for row, number in zip(cells(picture), (0, 1, 3), strict=True):
        masks = unpack_cells(batch.cells[number], 2)
        largest = masks[int(np.argmax(masks.sum((1, 2)) * batch.valid[number]))]
        changed = (row[0] != row[1]).any(-1)
        assert changed[largest].mean() > 0.95
        assert not changed[~ndimage.binary_dilation(largest, iterations=6)].any()  # the outline is narrower


def test_predictions_show_prompts_and_differ(drawn):
    _, picture = drawn
    for row in cells(picture):
        one, five, box = row[2:]
        for panel in (one, five):
            assert ((panel == 255).all(-1) & (row[0] != 255).any(-1)).sum() > 10  # a click's white rim
        blue = (abs(box.astype(int) - PALETTE[0]) < 30).all(-1)
        assert blue.sum() > 20  # the box's sides
        assert not np.array_equal(one, five)


def test_nothing_to_draw_is_said():
    from samjax.train.tasks.interactive.pictures import picture

    batch, model = photos(), shapes_sam()
    batch.valid[:] = False
    with pytest.raises(ValueError, match="no valid mask to draw"):
        picture(model.config, model.params, batch, model.execution)
