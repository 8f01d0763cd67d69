"""Pictures of predictions that a person would like to look at."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

# Distinguishable on photos and for the colour-blind; blue first because few things in photos are.
PALETTE = (
    (30, 144, 255),
    (255, 127, 14),
    (44, 190, 120),
    (220, 60, 160),
    (250, 210, 40),
    (140, 90, 255),
    (0, 200, 220),
)
# For many masks, where neighbours must differ: the same, and five more.
MANY = np.array([*PALETTE, (225, 45, 45), (165, 215, 20), (255, 150, 200), (150, 95, 50), (20, 60, 190)], np.uint8)
FOREGROUND_COLOUR, BACKGROUND_COLOUR = (40, 200, 80), (235, 50, 50)
SUPERSAMPLING = 3  # marks are drawn so much larger and reduced, which smooths their edges


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One prompt and its mask, in pixels of the photo."""

    mask: Bool[np.ndarray, "H W"]
    score: float | None = None  # predicted IoU
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()  # 1 foreground, 0 background
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1
    mask_prompt: Bool[np.ndarray, "H W"] | None = None  # drawn as a white outline


def overlay(rgb: UInt8[np.ndarray, "H W 3"], drawings: Sequence[Drawing]) -> Image.Image:
    """The photo with masks tinted and outlined, prompts drawn over them, and each mask's score."""
    picture = Image.fromarray(rgb)
    unit = max(2.0, 0.004 * float(np.hypot(*rgb.shape[:2])))  # line width and half a point's radius, pixels
    for number, drawing in enumerate(drawings):
        picture = _tint(picture, drawing.mask, PALETTE[number % len(PALETTE)], unit)
        if drawing.mask_prompt is not None:
            picture = _outline(picture, _stencil(drawing.mask_prompt), (255, 255, 255), unit)

    large = (picture.width * SUPERSAMPLING, picture.height * SUPERSAMPLING)
    marks = Image.new("RGBA", large)
    pen = ImageDraw.Draw(marks)
    for number, drawing in enumerate(drawings):
        _draw_prompt(pen, drawing, PALETTE[number % len(PALETTE)], unit)
    marks = marks.resize(picture.size, Image.Resampling.BOX)
    picture = Image.alpha_composite(picture.convert("RGBA"), marks)
    pen = ImageDraw.Draw(picture)
    taken: list[tuple[float, ...]] = []
    for number, drawing in enumerate(drawings):
        _draw_score(pen, drawing, PALETTE[number % len(PALETTE)], unit, picture.size, taken)
    return picture.convert("RGB")


def overlay_labels(rgb: UInt8[np.ndarray, "H W 3"], labels: Int32[np.ndarray, "H W"]) -> Image.Image:
    """The photo with every label but 0 tinted and outlined; labels that are near each other differ in colour."""
    from scipy import ndimage

    colours = np.concatenate([np.zeros((1, 3), np.uint8), MANY[_colouring(labels)]])[labels]
    width = 2 * max(1, round(0.0007 * float(np.hypot(*labels.shape)))) + 1  # of both sides of a border together, pixels
    edges = ndimage.maximum_filter(labels, width) != ndimage.minimum_filter(labels, width)
    opacity = np.where(edges, 230, 105).astype(np.uint16)  # of 256
    opacity[labels == 0] = 0
    opacity = opacity[:, :, None]
    return Image.fromarray(((rgb * (256 - opacity) + colours * opacity) >> 8).astype(np.uint8))


def _colouring(labels: Int32[np.ndarray, "H W"]) -> Int[np.ndarray, " N"]:
    """For each label from 1 on a colour's number: one that labels near it have least, larger labels first."""
    count = int(labels.max(initial=0))
    step = max(1, min(labels.shape) // 300)
    coarse = labels[::step, ::step].astype(np.int64)
    height, width = coarse.shape
    pairs = []
    for down, right in ((0, 1), (1, 0), (0, 4), (4, 0), (3, 3), (3, -3)):
        here = coarse[: max(height - down, 0), max(-right, 0) : max(width - max(right, 0), 0)]
        there = coarse[down:, max(right, 0) : max(width + min(right, 0), 0)]
        differ = (here != there) & (here > 0) & (there > 0)
        pairs.append(np.unique(here[differ] * (count + 1) + there[differ]))
    first, second = np.divmod(np.unique(np.concatenate(pairs)), count + 1)
    near: dict[int, set[int]] = {}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    areas = np.bincount(coarse.ravel(), minlength=count + 1)
    chosen = np.full(count + 1, -1)
    for number, label in enumerate((np.argsort(-areas[1:], kind="stable") + 1).tolist()):
        taken = [chosen[other] for other in near.get(label, ()) if chosen[other] >= 0]
        uses = np.bincount(taken, minlength=len(MANY))
        turn = (np.arange(len(MANY)) + number) % len(MANY)  # among equals the next one, so that all are used
        chosen[label] = turn[np.argmin(uses[turn])]
    return chosen[1:]


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one height in a row, a white gap between them."""
    gap = max(4, pictures[0].width // 100)
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    strip = Image.new("RGB", (width, pictures[0].height), "white")
    x = 0
    for picture in pictures:
        strip.paste(picture, (x, 0))
        x += picture.width + gap
    return strip


def contact_sheet(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str], height: int = 260) -> Image.Image:
    """Rows of pictures, each `height` pixels high on its sheet, with a title over each column."""
    gap, font = 10, ImageFont.load_default(size=18)
    scaled = [
        [one.resize((round(one.width * height / one.height), height), Image.Resampling.LANCZOS) for one in row]
        for row in rows
    ]
    widths = [max(picture.width for picture in column) for column in zip(*scaled, strict=True)]
    head = 28
    size = sum(widths) + gap * (len(widths) + 1), head + (height + gap) * len(rows)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    x = gap
    for column, (width, title) in enumerate(zip(widths, titles, strict=True)):
        pen.text((x + width / 2, head / 2), title, font=font, fill=(60, 60, 60), anchor="mm")
        for row, pictures in enumerate(scaled):
            inset = (width - pictures[column].width) // 2
            sheet.paste(pictures[column], (x + inset, head + row * (height + gap)))
        x += width + gap
    return sheet


def _tint(picture: Image.Image, mask: np.ndarray, colour: tuple[int, int, int], unit: float) -> Image.Image:
    stencil = _stencil(mask)
    solid = Image.new("RGB", picture.size, colour)
    picture = Image.composite(Image.blend(picture, solid, 0.42), picture, stencil)
    return _outline(picture, stencil, colour, unit)


def _stencil(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def _outline(picture: Image.Image, stencil: Image.Image, colour: tuple[int, int, int], unit: float) -> Image.Image:
    grown = stencil.filter(ImageFilter.MaxFilter(2 * max(1, round(unit / 2)) + 1))
    outline = ImageChops.subtract(grown, stencil).filter(ImageFilter.GaussianBlur(0.6))
    return Image.composite(Image.new("RGB", picture.size, colour), picture, outline)


def _draw_prompt(pen: ImageDraw.ImageDraw, drawing: Drawing, colour: tuple[int, int, int], unit: float) -> None:
    s = SUPERSAMPLING
    if drawing.box is not None:
        edges = [s * float(edge) for edge in drawing.box]
        pen.rectangle(_grown(edges, 0.5 * s * unit), outline=(255, 255, 255, 200), width=round(2 * s * unit))
        pen.rectangle(edges, outline=(*colour, 255), width=round(s * unit))
    for (x, y), label in zip(drawing.points, drawing.labels, strict=True):
        centre = [s * (x + 0.5), s * (y + 0.5)] * 2
        fill = FOREGROUND_COLOUR if label == 1 else BACKGROUND_COLOUR
        pen.ellipse(_grown(centre, 3 * s * unit), fill=(255, 255, 255, 255))
        pen.ellipse(_grown(centre, 2.4 * s * unit), fill=(*fill, 255))
        arm, half = 1.4 * s * unit, 0.35 * s * unit
        pen.rectangle((centre[0] - arm, centre[1] - half, centre[0] + arm, centre[1] + half), fill="white")
        if label == 1:
            pen.rectangle((centre[0] - half, centre[1] - arm, centre[0] + half, centre[1] + arm), fill="white")


def _draw_score(
    pen: ImageDraw.ImageDraw,
    drawing: Drawing,
    colour: tuple[int, int, int],
    unit: float,
    size: tuple[int, int],
    taken: list[tuple[float, ...]],
) -> None:
    """A label at the mask's topmost point, moved down where another label is already."""
    if drawing.score is None or not drawing.mask.any():
        return
    text = f"IoU {drawing.score:.2f}"
    font = ImageFont.load_default(size=max(11.0, 4.5 * unit))
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = unit
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    row = int(np.argmax(drawing.mask.any(1)))
    column = float(np.flatnonzero(drawing.mask[row]).mean())
    x = float(np.clip(column - width / 2, 0, max(size[0] - width, 0)))
    y = float(np.clip(row - height - unit, 0, max(size[1] - height, 0)))
    while any(abs(x - other[0]) < width and abs(y - other[1]) < height for other in taken) and y + 2 * height < size[1]:
        y += height
    taken.append((x, y))
    pen.rounded_rectangle((x, y, x + width, y + height), radius=unit, fill=(*colour, 230))
    # Black or white, whichever stands out against the label's colour (ITU-R BT.601 luma).
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 150
    pen.text((x + pad - left, y + pad - top), text, font=font, fill="black" if bright else "white")


def _grown(edges: Sequence[float], by: float) -> tuple[float, float, float, float]:
    return edges[0] - by, edges[1] - by, edges[2] + by, edges[3] + by
