"""The grid of points that asks for everything."""

import numpy as np
import pytest

from samjax.evaluation.user.grid import Grid


def test_points_are_the_centres_of_equal_parts_of_the_photo():
    batches = list(Grid(2, 0.7, points_per_batch=3).prompts((10, 20)))
    assert [len(batch) for batch in batches] == [3, 1]
    prompts = [prompt for batch in batches for prompt in batch]
    assert [prompt.points.tolist() for prompt in prompts] == [[[5, 2.5]], [[15, 2.5]], [[5, 7.5]], [[15, 7.5]]]
    assert all(np.array_equal(prompt.labels, [1]) for prompt in prompts)


def test_batches_decide_no_result():
    assert Grid(4, 0.7, 5).settings() == Grid(4, 0.7, 64).settings() == {"points_per_side": 4, "nms_threshold": 0.7}


def test_what_is_no_grid_is_explained():
    with pytest.raises(ValueError, match="at least 1, got 0 and 64"):
        Grid(0, 0.7)
    with pytest.raises(ValueError, match="at least 1, got 4 and 0"):
        Grid(4, 0.7, 0)
    for threshold in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"above 0 and up to 1, got {threshold}"):
            Grid(4, threshold)
