"""Runs a converted model and Meta's own beside each other on a photo, stage by stage. Needs PyTorch."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from samjax import transforms
from samjax.sam import Sam
from samjax.types import Prompts


def verify(sam: Sam, reference: Any, image: UInt8[np.ndarray, "H W 3"]) -> list[tuple[str, float]]:
    """The error of every stage against the reference.

    Args:
        sam: our model with the converted parameters.
        reference: a `segment_anything.modeling.Sam` that holds the source's.
        image: an RGB photo; both models are asked for the object at its centre, by a point, then by a box around it.

    Returns:
        (stage, error) in the order of computation. Errors are relative in the L2 norm, ‖ours − reference‖ /
        ‖reference‖, except for the final masks: the share of pixels that differ.
    """
    import torch
    from segment_anything import SamPredictor
    from segment_anything.utils.transforms import ResizeLongestSide

    height, width = image.shape[:2]
    predictor = SamPredictor(reference)
    resize = ResizeLongestSide(reference.image_encoder.img_size)
    stages = []
    with torch.no_grad():
        resized = torch.as_tensor(resize.apply_image(image)).permute(2, 0, 1)[None].contiguous()
        pixels = reference.preprocess(resized.to(reference.device))
        stages.append(("pixels", _error(transforms.to_pixels(image, sam.config), _channels_last(pixels)[0])))
        predictor.set_image(image)
        embedding = sam.encode(image)
        stages.append(("image embedding", _error(embedding.features, _channels_last(predictor.features)[0])))
        point = np.array([[width / 2, height / 2]], np.float32)
        box = np.array([width / 4, height / 4, 3 * width / 4, 3 * height / 4], np.float32)
        for name, ours, theirs in (
            ("point", Prompts.of(points=[point], labels=[[1]]), {"point_coords": point, "point_labels": np.array([1])}),
            ("box", Prompts.of(boxes=[box]), {"box": box}),
        ):
            prediction = sam.predict(embedding, ours)
            masks, iou, logits = predictor.predict(**theirs, multimask_output=True)
            differing = sam.masks(prediction, embedding)[0] != masks
            stages += [
                (f"{name}: mask logits", _error(prediction.logits[0], logits)),
                (f"{name}: predicted IoU", _error(prediction.iou[0], iou)),
                (f"{name}: pixels of the masks that differ", float(np.mean(differing))),
            ]
    return stages


def _channels_last(tensor: Any) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).float().cpu().numpy()


def _error(ours: Any, reference: np.ndarray) -> float:
    ours = np.asarray(ours, np.float32)
    return float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))
