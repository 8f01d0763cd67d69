"""Samples with plain objects, and segmenters that compute nothing: what they answer is known beforehand."""

import numpy as np
from scipy import ndimage

from samjax.evaluation.protocol import Answer, Object, Prompt, Sample
from samjax.ops.rle import encode_rle


def rectangle(size, top, bottom, left, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def sample(*masks, name="a", ignore=None, categories=None):
    """A photo with these objects, numbered from 1; the photo's first pixel is the number of its objects."""
    rgb = np.zeros((*masks[0].shape, 3), np.uint8)
    rgb[0, 0] = len(masks)
    rle = None if ignore is None else encode_rle(ignore)
    categories = categories or [None] * len(masks)
    objects = (
        Object(encode_rle(mask), number, category, rle)
        for number, (mask, category) in enumerate(zip(masks, categories, strict=True), 1)
    )
    return Sample(name, rgb, tuple(objects))


class Scripted:
    """Answers by a function (photo number, prompt, multimask) -> Answer, and writes down what it was asked."""

    images_together = 4

    def __init__(self, answer):
        self._answer = answer
        self.looks = []
        self.asked = []  # by call: (multimask, prompts by photo)

    def look(self, photos):
        self.looks.append(len(photos))

    def ask(self, prompts, *, multimask):
        assert len(prompts) == self.looks[-1]
        self.asked.append((multimask, prompts))
        return [[self._answer(photo, one, multimask) for one in own] for photo, own in enumerate(prompts)]

    def full_logits(self, photo, logits):
        raise AssertionError("nobody asks for them")


def answer(*masks, iou=None):
    """Logits are the mask's first pixels, ±3, with its confidence in the corner so that they can be told apart."""
    iou = np.array([0.5] * len(masks) if iou is None else iou, np.float32)
    logits = np.stack([np.where(mask[:4, :4], 3, -3) for mask in masks]).astype(np.float32)
    logits[:, 0, 0] = iou
    return Answer(np.stack(masks), iou, logits)


def part(mask, share):
    """The first `share` of a mask's pixels in reading order: its IoU with the mask."""
    pixels = np.flatnonzero(mask)
    found = np.zeros(mask.size, bool)
    found[pixels[: round(share * len(pixels))]] = True
    return found.reshape(mask.shape)


def paint(prompt: Prompt, size, multimask) -> Answer:
    """A segmenter of sorts: discs around clicks on the object, less discs around those beside it, of a radius that
    depends on the mask prompt; of three masks the second is the most confident."""
    y, x = np.mgrid[: size[0], : size[1]]
    radius = 4 if prompt.logits is None else 3 + abs(prompt.logits).sum() % 3
    masks = []
    for factor in (0.5, 1, 2) if multimask else (1.2,):
        mask = np.zeros(size, bool)
        for (px, py), label in zip(prompt.points, prompt.labels, strict=True):
            mask[(x - px) ** 2 + (y - py) ** 2 < (factor * radius) ** 2] = bool(label)
        masks.append(mask)
    return answer(*masks, iou=[0.2, 0.9, 0.4] if multimask else [0.7])


def ritm(target, prediction, clicked, judged):
    """The next click of RITM, by its definition word for word: (x, y, positive)."""
    found = []
    for wrong in (target & ~prediction & judged, ~target & prediction & judged):
        depth = ndimage.distance_transform_edt(np.pad(wrong, 1)).astype(np.float32)[1:-1, 1:-1]
        for x, y, _ in clicked:
            depth[y, x] = 0
        found.append((depth.max(), np.argwhere(depth == depth.max())[0]))
    (missed, missed_at), (beside, beside_at) = found
    y, x = missed_at if missed > beside else beside_at
    return int(x), int(y), bool(missed > beside)
