"""A part of a data set, the same on every run."""

import dataclasses

import numpy as np

from samjax.evaluation.protocol import Dataset, Sample
from samjax.ops.rle import rle_area


class First:
    """The first photos of a data set, as they are."""

    def __init__(self, dataset: Dataset, limit: int | None) -> None:
        """All without `limit`. Raises ValueError for one below 1."""
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, or None for all; it is {limit}")
        self._dataset, self._limit = dataset, limit

    def __len__(self) -> int:
        count = len(self._dataset)
        return count if self._limit is None else min(count, self._limit)

    def name(self, index: int) -> str:
        return self._dataset.name(self._checked(index))

    def __getitem__(self, index: int) -> Sample:
        """Raises what the data set raises."""
        return self._dataset[self._checked(index)]

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"photo {index} of {len(self)}")
        return index


class Chosen(First):
    """The first photos of a data set, with a few random objects each.

    Which objects are drawn depends on the seed and the photo's index alone, and not on what else is looked at. They
    keep their order.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        limit: int | None = None,
        objects_per_image: int | None = None,
        min_area: int = 1,
        seed: int = 0,
    ) -> None:
        """All photos without `limit`, all objects without `objects_per_image`; `min_area` is in pixels.

        Raises ValueError for numbers below 1, or a seed below 0.
        """
        super().__init__(dataset, limit)
        if objects_per_image is not None and objects_per_image < 1:
            raise ValueError(f"objects_per_image must be at least 1, or None for all; it is {objects_per_image}")
        if seed < 0:
            raise ValueError(f"seed must not be negative; it is {seed}")
        self._objects_per_image, self._min_area, self._seed = objects_per_image, min_area, seed

    def __getitem__(self, index: int) -> Sample:
        """A photo may have no object that is large enough. Raises what the data set raises."""
        sample = super().__getitem__(index)
        objects = [found for found in sample.objects if rle_area(found.mask) >= self._min_area]
        count = self._objects_per_image
        if count is not None and count < len(objects):
            random = np.random.default_rng([self._seed, index])
            objects = [objects[number] for number in sorted(random.choice(len(objects), count, replace=False).tolist())]
        return dataclasses.replace(sample, objects=tuple(objects))
