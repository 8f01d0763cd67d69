"""Batches for tests of training, as the data pipeline would hand them over."""

import numpy as np
from example_models import shapes_photo

SIDE, RATIO, SLOTS = 128, 2, 4  # of the model of shapes


def shapes_batch(seeds, sizes=None):
    """Photos of the size of the model's input or smaller, each with up to four masks."""
    from samjax.train.batch import Batch, pack_cells

    count = len(seeds)
    image = np.full((count, SIDE, SIDE, 3), 77, np.uint8)  # what stands in the padding does not matter
    masks, valid = np.zeros((count, SLOTS, SIDE, SIDE), bool), np.zeros((count, SLOTS), bool)
    sizes = sizes or [(SIDE, SIDE)] * count
    for i, (seed, (height, width)) in enumerate(zip(seeds, sizes, strict=True)):
        photo, shapes = shapes_photo(height, width, seed)
        image[i, :height, :width] = photo
        for j, mask in enumerate(shapes[:SLOTS]):
            masks[i, j, :height, :width], valid[i, j] = mask, True
    positions = np.arange(count)
    cells = pack_cells(masks, RATIO)
    return Batch(
        image, np.array(sizes, np.int32), cells, valid, positions.astype(np.uint32), positions.astype(np.int32)
    )


def photos():
    """One that fills the model's input, two that are padded, and one without a valid mask."""
    batch = shapes_batch([3, 8, 5, 9], [(128, 128), (128, 96), (128, 128), (100, 128)])
    batch.valid[2] = False
    return batch
