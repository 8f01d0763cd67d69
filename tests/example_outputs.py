"""Photos, a stand-in for a mask generator, and jobs for tests of `samjax.everything`."""

from pathlib import Path

import numpy as np
from PIL import Image

from samjax.everything import Job
from samjax.ops.rle import encode_rle


class Thresholds:
    """Stands for a mask generator: the masks are the pixels above some brightnesses."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        masks = [image[:, :, 0] > level for level in (50, 120, 200)]
        return [
            {
                "segmentation": encode_rle(mask),
                "area": int(mask.sum()),
                "bbox": [0, 0, 1, 1],
                "predicted_iou": 0.9,
                "point_coords": [[1.0, 2.0]],
                "stability_score": 0.95,
                "crop_box": [0, 0, image.shape[1], image.shape[0]],
            }
            for mask in masks
        ]


def save(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    values = np.stack([(x * 9 + y * 3 + seed * 40) % 256] * 3, 2)
    Image.fromarray(values.astype(np.uint8)).save(path)


def job(out, *formats, **changes) -> Job:
    return Job(out, formats or ("coco", "overlay"), {"threshold": 0.5}, **changes)


def files_below(out: Path) -> dict[str, bytes]:
    """But for the records of what is done."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and ".samjax" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}
