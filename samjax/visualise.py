"""Pictures of predictions that a person would like to look at."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont

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
_WHITE = (255, 255, 255, 255)
TILE = 128  # pixels a side: what is drawn on at a time
_BLUR = 4  # pixels that an outline's softened edges do not reach
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
    """The photo with masks tinted and outlined, prompts drawn over them, and each mask's score.

    Only tiles in which something is drawn are worked on, so a large photo takes longer to save than to draw on.
    """
    picture = Image.fromarray(rgb)
    unit = max(2.0, 0.004 * float(np.hypot(*rgb.shape[:2])))  # line width and half a point's radius, pixels
    coloured = [(drawing, PALETTE[number % len(PALETTE)]) for number, drawing in enumerate(drawings)]
    for drawing, colour in coloured:
        _tint(picture, drawing.mask, colour)
        _outline(picture, drawing.mask, colour, unit)
        if drawing.mask_prompt is not None:
            _outline(picture, drawing.mask_prompt, (255, 255, 255), unit)
    _draw_marks(picture, [mark for drawing, colour in coloured for mark in _marks(drawing, colour, unit)])
    pen = ImageDraw.Draw(picture)
    taken: list[tuple[float, ...]] = []
    for drawing, colour in coloured:
        _draw_score(pen, drawing, colour, unit, picture.size, taken)
    return picture


def overlay_labels(rgb: UInt8[np.ndarray, "H W 3"], labels: Int32[np.ndarray, "H W"]) -> Image.Image:
    """The photo with every label but 0 tinted and outlined; labels that are near each other differ in colour."""
    colours = np.concatenate([np.zeros((1, 3), np.uint8), MANY[_colouring(labels)]])
    half = max(1, round(0.0007 * float(np.hypot(*labels.shape))))  # of a border's width, on either side of it, pixels
    # Where two labels are within that distance, there is a pair of neighbours that differ.
    down = _any_near(_any_near(labels[1:] != labels[:-1], 0, half, 2 * half), 1, half, 2 * half + 1)
    across = _any_near(_any_near(labels[:, 1:] != labels[:, :-1], 1, half, 2 * half), 0, half, 2 * half + 1)
    picture = rgb.copy()
    for top in range(0, len(labels), TILE):  # some rows at a time stay in the processor's cache
        rows = slice(top, top + TILE)
        opacity = np.where(down[rows] | across[rows], 230, 105).astype(np.uint16)  # of 256
        opacity[labels[rows] == 0] = 0
        opacity = opacity[:, :, None]
        picture[rows] = (picture[rows] * (256 - opacity) + colours[labels[rows]] * opacity) >> 8
    return Image.fromarray(picture)


def _colouring(labels: Int32[np.ndarray, "H W"]) -> Int[np.ndarray, " N"]:
    """A colour's number for each label from 1 on, one that labels near it have least, larger labels first."""
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
    if len(pictures) == 1:
        return pictures[0]
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


def _tint(picture: Image.Image, mask: Bool[np.ndarray, "H W"], colour: tuple[int, int, int]) -> None:
    for y, x in _tiles(mask.shape):
        part = mask[y, x]
        if part.any():
            box = x.start, y.start, x.stop, y.stop
            tinted = Image.blend(picture.crop(box), Image.new("RGB", part.shape[::-1], colour), 0.42)
            picture.paste(tinted, box, _stencil(part))


def _outline(picture: Image.Image, mask: Bool[np.ndarray, "H W"], colour: tuple[int, int, int], unit: float) -> None:
    """Draws a line around a mask, beside its outermost pixels."""
    width = max(1, round(unit / 2))
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return
    margin = width + _BLUR
    y0, x0 = int(max(rows[0] - margin, 0)), int(max(columns[0] - margin, 0))
    near = mask[y0 : rows[-1] + 1 + margin, x0 : columns[-1] + 1 + margin]
    grown = near
    for axis in (0, 1):
        grown = _any_near(grown, axis, width, 2 * width + 1)
    line = grown & ~near
    for y, x in _tiles(line.shape):
        top, left = max(y.start - _BLUR, 0), max(x.start - _BLUR, 0)
        part = line[top : y.stop + _BLUR, left : x.stop + _BLUR]
        if part.any():
            box = x.start - left, y.start - top, x.stop - left, y.stop - top
            softened = _stencil(part).filter(ImageFilter.GaussianBlur(0.6)).crop(box)
            picture.paste(colour, (x0 + x.start, y0 + y.start, x0 + x.stop, y0 + y.stop), softened)


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Squares, as slices of rows and columns, that cover an array of `shape` (height, width)."""
    for y in range(0, shape[0], TILE):
        for x in range(0, shape[1], TILE):
            yield slice(y, min(y + TILE, shape[0])), slice(x, min(x + TILE, shape[1]))


def _any_near(present: Bool[np.ndarray, "..."], axis: int, beyond: int, length: int) -> Bool[np.ndarray, "..."]:
    """True if any of `length` neighbours along an axis is true: the first ones begin, and the last ones end, `beyond`
    outside the array."""
    widths = [(beyond, beyond) if each == axis else (0, 0) for each in range(present.ndim)]
    present = np.moveaxis(np.pad(present, widths), axis, 0)
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        present = present[:-step] | present[step:]
        covered += step
    return np.moveaxis(present, 0, axis)


def _stencil(mask: Bool[np.ndarray, "H W"]) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


class _Mark(NamedTuple):
    """A part of a drawn prompt: filled, or a frame where it has a width."""

    shape: Literal["ellipse", "rectangle"]
    edges: tuple[int, ...]  # x0, y0, x1, y1 in pixels of the enlarged photo
    colour: tuple[int, ...]  # RGBA
    width: int = 0  # of the frame, inwards

    def is_in(self, left: int, top: int, side: int) -> bool:
        """True if some of it is drawn in a square."""
        x0, y0, x1, y1 = self.edges
        w = self.width
        frame = (x0, y0, x1, y0 + w), (x0, y1 - w, x1, y1), (x0, y0, x0 + w, y1), (x1 - w, y0, x1, y1)
        return any(
            x0 < left + side and x1 >= left and y0 < top + side and y1 >= top
            for x0, y0, x1, y1 in (frame if w else (self.edges,))
        )

    def draw(self, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draws it with a corner of the enlarged photo as (0, 0)."""
        edges = np.subtract(self.edges, (left, top, left, top))
        if self.shape == "rectangle":  # Pillow visits every pixel of a frame, also those far outside
            edges = edges.clip(-self.width - 1, SUPERSAMPLING * TILE + self.width + 1)
        style = {"outline": self.colour, "width": self.width} if self.width else {"fill": self.colour}
        getattr(pen, self.shape)(edges.tolist(), **style)


def _draw_marks(picture: Image.Image, marks: Sequence[_Mark]) -> None:
    """Draws marks, later ones over earlier ones, with smooth edges."""
    s = SUPERSAMPLING
    for y, x in _tiles(picture.size[::-1]):
        here = [mark for mark in marks if mark.is_in(s * x.start, s * y.start, s * TILE)]
        if here:
            box = x.start, y.start, x.stop, y.stop
            before = picture.crop(box).convert("RGBA")
            drawn = Image.new("RGBA", (s * before.width, s * before.height))
            for mark in here:
                mark.draw(ImageDraw.Draw(drawn), s * x.start, s * y.start)
            drawn = drawn.resize(before.size, Image.Resampling.BOX)
            picture.paste(Image.alpha_composite(before, drawn).convert("RGB"), box)


def _marks(drawing: Drawing, colour: tuple[int, int, int], unit: float) -> Iterator[_Mark]:
    """A prompt's box and points."""
    s = SUPERSAMPLING

    def mark(shape: Any, edges: Sequence[float], colour: tuple[int, ...], width: int = 0) -> _Mark:
        return _Mark(shape, tuple(map(int, edges)), colour, width)

    if drawing.box is not None:
        edges = [s * float(edge) for edge in drawing.box]
        yield mark("rectangle", _grown(edges, 0.5 * s * unit), (255, 255, 255, 200), round(2 * s * unit))
        yield mark("rectangle", edges, (*colour, 255), round(s * unit))
    for (x, y), label in zip(drawing.points, drawing.labels, strict=True):
        centre = [s * (x + 0.5), s * (y + 0.5)] * 2
        fill = FOREGROUND_COLOUR if label == 1 else BACKGROUND_COLOUR
        yield mark("ellipse", _grown(centre, 3 * s * unit), _WHITE)
        yield mark("ellipse", _grown(centre, 2.4 * s * unit), (*fill, 255))
        arm, half = 1.4 * s * unit, 0.35 * s * unit
        yield mark("rectangle", (centre[0] - arm, centre[1] - half, centre[0] + arm, centre[1] + half), _WHITE)
        if label == 1:
            yield mark("rectangle", (centre[0] - half, centre[1] - arm, centre[0] + half, centre[1] + arm), _WHITE)


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
    pen.rounded_rectangle((x, y, x + width, y + height), radius=unit, fill=colour)
    # Black or white, whichever stands out against the label's colour (ITU-R BT.601 luma).
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 150
    pen.text((x + pad - left, y + pad - top), text, font=font, fill="black" if bright else "white")


def _grown(edges: Sequence[float], by: float) -> tuple[float, float, float, float]:
    return edges[0] - by, edges[1] - by, edges[2] + by, edges[3] + by
