"""A fixed part of a data set."""

import numpy as np
import pytest
from pycocotools import mask as coco

from samjax.evaluation.datasets import Chosen, First
from samjax.evaluation.protocol import Dataset, Object, Sample


class Columns:
    """Photos with ten objects; object k has k + 1 pixels."""

    def __len__(self) -> int:
        return 4

    def name(self, index: int) -> str:
        return f"photo {index}"

    def __getitem__(self, index: int) -> Sample:
        y, x = np.mgrid[:10, :10]
        masks = [coco.encode(np.asfortranarray((x == number) & (y <= number), np.uint8)) for number in range(10)]
        objects = tuple(Object(mask, number) for number, mask in enumerate(masks))
        return Sample(self.name(index), np.zeros((10, 10, 3), np.uint8), objects)


def ids(sample: Sample) -> list[int | str]:
    return [found.id for found in sample.objects]


def test_objects_are_those_that_numpys_generator_draws_for_the_photo():
    chosen = Chosen(Columns(), objects_per_image=5, seed=7)
    assert isinstance(chosen, Dataset)
    for index in (3, 0, 3):
        expected = np.random.default_rng([7, index]).choice(10, 5, replace=False)
        assert ids(chosen[index]) == sorted(expected.tolist())
    assert len({tuple(ids(chosen[index])) for index in range(4)}) > 1
    assert ids(Chosen(Columns(), objects_per_image=5)[0]) != ids(chosen[0])


def test_small_objects_do_not_count():
    chosen = Chosen(Columns(), objects_per_image=3, min_area=7)
    assert all(len(found) == 3 and set(found) <= {6, 7, 8, 9} for found in (ids(chosen[index]) for index in range(4)))
    assert ids(Chosen(Columns(), min_area=7)[0]) == [6, 7, 8, 9]
    assert ids(Chosen(Columns(), objects_per_image=5, min_area=7)[0]) == [6, 7, 8, 9]
    assert ids(Chosen(Columns(), min_area=11)[0]) == []


@pytest.mark.parametrize("first", [First, lambda dataset, limit: Chosen(dataset, limit=limit)])
def test_the_first_photos_are_kept(first):
    chosen = first(Columns(), 2)
    assert isinstance(chosen, Dataset)
    assert len(chosen) == 2
    assert [chosen.name(0), chosen[1].name] == ["photo 0", "photo 1"]
    assert ids(chosen[0]) == list(range(10))
    assert len(first(Columns(), 9)) == len(first(Columns(), None)) == 4
    for ask in (chosen.name, chosen.__getitem__):
        with pytest.raises(IndexError):
            ask(2)


def test_numbers_out_of_range_are_refused():
    for options in ({"limit": 0}, {"objects_per_image": 0}, {"seed": -1}):
        (name,) = options
        with pytest.raises(ValueError, match=name):
            Chosen(Columns(), **options)
    with pytest.raises(ValueError, match="limit must be at least 1, or None for all; it is 0"):
        First(Columns(), 0)
