"""Records in memory, for tests of what reads them; in a file of its own so that worker processes can import it."""

import numpy as np
from example_models import random_photo
from jax._src import xla_bridge
from pycocotools import mask as coco

from samjax.readers.record import BadRecord, Record


class ShapesSource:
    """Photos of different sizes, each with its own masks; the records in `bad` are bad.

    With `device_free` it insists that no JAX device is in use where it is read.
    """

    def __init__(self, count: int, bad: tuple[int, ...] = (), device_free: bool = False) -> None:
        self.count, self.bad, self.device_free = count, bad, device_free

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"shapes_{index}"

    def __getitem__(self, index: int) -> Record:
        if index in self.bad:
            raise BadRecord("planted")
        if self.device_free:
            assert not xla_bridge.backends_are_initialized()
        random = np.random.RandomState(index)
        height, width = random.randint(40, 100, 2)
        y, x = np.mgrid[:height, :width]
        masks = []
        for _ in range(random.randint(2, 9)):
            (cx, cy), radius = random.uniform(0, (width, height)), random.uniform(8, 30)
            disc = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            masks.append(coco.encode(np.asfortranarray(disc, np.uint8)))
        return Record(self.name(index), random_photo(height, width, seed=index), tuple(masks))
