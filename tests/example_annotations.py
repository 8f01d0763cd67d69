"""Photos and annotations in the formats of others, in memory."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco


def png(array: np.ndarray, **options) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG", **options)
    return data.getvalue()


def jpeg(array: np.ndarray, **options) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "JPEG", quality=95, **options)
    return data.getvalue()


def sa1b_json(number: int, masks: list[np.ndarray]) -> dict:
    """One of SA-1B's files, with all its fields."""
    height, width = masks[0].shape
    annotations = []
    for place, mask in enumerate(masks):
        rle = coco.encode(np.asfortranarray(mask, np.uint8))
        annotations.append(
            {
                "bbox": coco.toBbox(rle).tolist(),
                "area": int(mask.sum()),
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
                "predicted_iou": 0.95,
                "point_coords": [[1.0, 2.0]],
                "crop_box": [0.0, 0.0, float(width), float(height)],
                "id": 1000 * number + 7 * place,
                "stability_score": 0.97,
            }
        )
    image = {"image_id": number, "width": width, "height": height, "file_name": f"sa_{number}.jpg"}
    return {"image": image, "annotations": annotations}


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def decoded(record) -> np.ndarray:
    """The masks of a record, M x H x W."""
    return np.moveaxis(coco.decode(list(record.masks)).astype(bool), -1, 0)
