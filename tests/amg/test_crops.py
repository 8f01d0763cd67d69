import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samjax.amg import crops


def test_a_grid_lies_at_the_centres_of_its_cells_row_by_row():
    assert crops.point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_points_per_side_shrink_from_layer_to_layer():
    assert [len(grid) for grid in crops.point_grids(9, 2, 2)] == [81, 16, 4]


@given(st.integers(64, 3000), st.integers(64, 3000), st.integers(0, 3), st.floats(0, 0.9))
def test_each_layer_of_crops_covers_the_photo(height, width, layers, ratio):
    found = crops.crop_boxes((height, width), layers, ratio)
    assert found[0] == ((0, 0, width, height), 0)
    for layer in range(1, layers + 1):
        boxes = np.array([crop.box for crop in found if crop.layer == layer])
        assert len(boxes) == 4**layer
        for axis, side in ((0, width), (1, height)):
            spans = sorted({(low, high) for low, high in boxes[:, [axis, axis + 2]].tolist()})
            reached = 0
            for low, high in spans:
                assert low <= reached
                reached = max(reached, high)
            assert reached == side


def test_a_photo_of_one_pixel_has_crops_that_are_not_empty():
    boxes = [crop.box for crop in crops.crop_boxes((1, 1), 2, 0.3)]
    assert set(boxes) == {(0, 0, 1, 1)}


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 900), st.data())
def test_tiles_cover_the_photo_and_none_is_superfluous(height, width, tile, data):
    overlap = data.draw(st.integers(0, tile // 2))
    boxes = crops.tile_boxes((height, width), tile, overlap)
    assert all((x1 - x0, y1 - y0) == (tile, tile) for x0, y0, x1, y1 in boxes)
    for axis, side in ((0, width), (1, height)):
        starts = sorted({box[axis] for box in boxes})
        assert starts[0] == 0
        assert set(np.diff(starts)) <= {tile - overlap}
        assert starts[-1] + tile >= side
        assert len(starts) == 1 or starts[-2] + tile < side


def test_tiles_do_not_depend_on_where_the_photo_ends():
    small, large = crops.tile_boxes((500, 700), 256, 64), crops.tile_boxes((900, 1300), 256, 64)
    assert set(small) < set(large)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crops.point_grid(0), "at least one point a side, got 0"),
        (lambda: crops.point_grids(4, 3, 2), "crop layer 3 has no points"),
        (lambda: crops.point_grids(4, 1, 0), "downscale factor below 1, got 1 and 0"),
        (lambda: crops.point_grids(4, -1, 1), "layers cannot be negative"),
        (lambda: crops.crop_boxes((10, 10), -1, 0.3), "cannot be negative, got -1"),
        (lambda: crops.crop_boxes((10, 10), 1, 1.0), "from 0 to below 1, got 1.0"),
        (lambda: crops.tile_boxes((10, 10), 8, 8), "overlap from 0 to below it, got 8 and 8"),
        (lambda: crops.tile_boxes((10, 10), 0, 0), "positive side"),
    ],
)
def test_senseless_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
