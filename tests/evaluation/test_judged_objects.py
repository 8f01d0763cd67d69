"""How many objects are judged at a time, whatever the number of photos."""

import numpy as np
import pytest
from example_segmenters import sample

from samjax.evaluation import judged_objects
from samjax.evaluation.judged_objects import groups


def photos(count, size=(6, 8), objects=20):
    masks = np.ones((objects, *size), bool)
    return [sample(*masks, name=str(number)) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "pixels", "most"),
    [
        pytest.param(1, (6, 8), 2**26, 20, id="all of one photo"),
        pytest.param(64, (6, 8), 2**26, 512, id="so many objects"),
        pytest.param(4, (6, 8), 4 * 3 * 48 + 40, 12, id="so many pixels"),
        pytest.param(4, (6, 8), 1, 4, id="one of each at least"),
    ],
)
def test_photos_share_the_memory(count, size, pixels, most, monkeypatch):
    monkeypatch.setattr(judged_objects, "PIXELS_TOGETHER", pixels)
    samples = photos(count, size)
    together = [[len(own) for own in group] for group in groups(samples)]
    assert max(map(sum, together)) == most
    assert np.sum(together, axis=0).tolist() == [20] * count


def test_one_photo_has_64_objects_at_a_time():
    assert [len(own) for (own,) in groups(photos(1, objects=100))] == [64, 36]


def test_objects_come_once_and_in_order():
    few, many = photos(1, objects=3)[0], photos(1, objects=70)[0]
    found = [[target.object.id for group in groups([few, many]) for target in group[photo]] for photo in (0, 1)]
    assert found == [[1, 2, 3], list(range(1, 71))]
