"""COCO run-length encoding of masks, by pycocotools: runs go down the columns and start with background."""

import numpy as np
from jaxtyping import Bool


def encode_rle(mask: Bool[np.ndarray, "H W"]) -> dict:
    """{"size": [H, W], "counts": compressed runs as text}, ready for JSON."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: dict) -> Bool[np.ndarray, "H W"]:
    """The mask of compressed runs, or of uncompressed ones (a list of lengths)."""
    from pycocotools import mask as coco

    if isinstance(rle["counts"], list):
        rle = coco.frPyObjects(rle, *rle["size"])
    return coco.decode(rle).astype(bool)


def rle_area(rle: dict) -> int:
    """Foreground pixels."""
    from pycocotools import mask as coco

    return int(coco.area(rle))


def rle_box(rle: dict) -> list[float]:
    """COCO's box [x, y, width, height] in pixels; the width of a single column is 1, an empty mask has all zeros."""
    from pycocotools import mask as coco

    return coco.toBbox(rle).tolist()
