"""Photos, prompts and the model's masks as one picture: a row for each photo, with a mask of it.

photo | target | after 1 click | after 5 clicks | for the box
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from samjax.config import SamConfig
from samjax.execution import Execution
from samjax.types import Params
from samjax.visualise import Drawing, overlay, side_by_side

from ...batch import Batch, cell_ratio, on_host, unpack_cells
from .validation import ValidationAnswer, answers

COLUMNS = ("photo", "target", "1 click", "5 clicks", "box")
CLICKS = 5
_HEIGHT = 320  # of a photo in the picture at most, pixels


def picture(
    config: SamConfig, params: Params, batch: Batch, execution: Execution, *, rows: int = 4
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws the first `rows` photos of a batch that have a mask, with the largest mask of each.

    The number at a mask is its true IoU. Arguments are those of `samjax.train.tasks.interactive.validation.validate`,
    whose programs it shares. Raises ValueError if no photo has a mask.
    """
    valid, sizes = on_host(batch.valid), on_host(batch.size)
    photos = np.flatnonzero(valid.any(1))[:rows].tolist()
    if not photos:
        raise ValueError("there is no valid mask to draw; check data.val, data.min_area and data.max_cover")
    images, masks = on_host(batch.image), on_host(batch.cells)
    shown = {answer.clicks: answer for answer in answers(config, params, batch, execution, CLICKS)}
    strips = []
    for photo in photos:
        areas = np.bitwise_count(masks[photo]).sum((1, 2)) * valid[photo]
        slot = int(np.argmax(areas))
        height, width = sizes[photo].tolist()
        rgb = np.ascontiguousarray(images[photo, :height, :width, :3])

        def pixels(cells: np.ndarray, height: int = height, width: int = width) -> np.ndarray:
            return np.ascontiguousarray(unpack_cells(cells, cell_ratio(config))[:height, :width])

        drawings = [
            [],
            [Drawing(pixels(masks[photo, slot]))],
            *([_drawing(shown[clicks], photo, slot, pixels)] for clicks in (1, CLICKS, 0)),
        ]
        strips.append(side_by_side([_fitted(overlay(rgb, drawing), config.image_size) for drawing in drawings]))
    return np.asarray(_stacked(strips))


def _drawing(answer: ValidationAnswer, photo: int, slot: int, pixels: Callable[[np.ndarray], np.ndarray]) -> Drawing:
    points, labels = answer.points[photo, slot], answer.labels[photo, slot]
    mask, score = pixels(answer.mask[photo, slot]), float(answer.iou[photo, slot])
    if not answer.clicks:
        return Drawing(mask, score, box=tuple(points.ravel().tolist()))
    used = labels >= 0
    return Drawing(mask, score, tuple(map(tuple, points[used].tolist())), tuple(labels[used].tolist()))


def _fitted(drawn: Image.Image, image_size: tuple[int, int]) -> Image.Image:
    """Puts a photo on white of the size of the model's input, then at a height to look at."""
    sheet = Image.new("RGB", (image_size[1], image_size[0]), "white")
    sheet.paste(drawn, (0, 0))
    scale = min(1.0, _HEIGHT / image_size[0])
    return sheet.resize((round(image_size[1] * scale), round(image_size[0] * scale)), Image.Resampling.LANCZOS)


def _stacked(strips: list[Image.Image]) -> Image.Image:
    """Rows below each other, below the columns' names."""
    width, height = strips[0].size
    gap, title = 6, 22
    sheet = Image.new("RGB", (width, title + len(strips) * (height + gap)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for number, name in enumerate(COLUMNS):
        pen.text((number * width / len(COLUMNS) + 4, 3), name, font=font, fill="black")
    for number, strip in enumerate(strips):
        sheet.paste(strip, (0, title + number * (height + gap)))
    return sheet
