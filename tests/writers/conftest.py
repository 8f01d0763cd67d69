"""Photos with known masks, written by every format."""

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 80, 120


def shapes() -> dict[str, np.ndarray]:
    """What outlines must cope with, on a photo of 80 x 120 pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = (x - 40) ** 2 + (y - 40) ** 2 < 30**2
    masks = {
        "disc": disc,
        "ring": disc & ((x - 44) ** 2 + (y - 38) ** 2 > 12**2),
        "three holes": disc & (np.abs(x - 30) > 3) & (np.abs(x - 42) > 3) & (np.abs(y - 40) > 2) | (disc & (x > 55)),
        "two parts": ((x - 25) ** 2 + (y - 25) ** 2 < 15**2) | ((x - 90) ** 2 + (y - 50) ** 2 < 20**2),
        "island in a hole": disc & ((x - 40) ** 2 + (y - 40) ** 2 > 22**2) | ((x - 40) ** 2 + (y - 40) ** 2 < 12**2),
        "whole photo": np.ones_like(disc),
        "photo's corner": (x < 25) & (y < 20),
        "slanted": np.abs(0.6 * (x - 60) - 0.8 * (y - 40)) < 7,
        "pixel": (x == 7) & (y == 9),
        "last pixel": (x == WIDTH - 1) & (y == HEIGHT - 1),
        "row": (y == 30) & (x > 10) & (x < 60),
        "column": (x == 0) & (y > 5),
        "diagonal": (x == y) & (x < 40),
        "chessboard": (x // 1 + y) % 2 == 0,
    }
    return masks


@pytest.fixture(scope="session")
def masks() -> dict[str, np.ndarray]:
    return shapes()


@pytest.fixture(scope="session")
def records_of():
    """Records as the generator makes them, of boolean masks."""
    from samjax.ops.rle import encode_rle, rle_area, rle_box

    def records(masks) -> list[dict]:
        made = []
        for number, mask in enumerate(masks):
            rle = encode_rle(mask)
            x, y, width, height = (int(side) for side in rle_box(rle))
            made.append(
                {
                    "segmentation": rle,
                    "area": rle_area(rle),
                    "bbox": [x, y, max(width - 1, 0), max(height - 1, 0)],
                    "predicted_iou": 0.9 + number / 1000,
                    "point_coords": [[x + 0.5, y + 0.5]],
                    "stability_score": 0.96,
                    "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
                }
            )
        return made

    return records


@pytest.fixture
def found(tmp_path, masks, records_of):
    """A photo in a folder of its own with the masks of `shapes`."""
    from samjax.writers import Photo, SegmentedPhoto

    rgb = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "shapes.png"
    Image.fromarray(rgb).save(path)
    return SegmentedPhoto(Photo(path, "shapes.png", "shapes"), rgb, records_of(masks.values()))
