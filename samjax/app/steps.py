"""The steps by which an object was segmented: what was asked, and which answer was chosen. They are what is kept of an
object beside its mask, so that the mask can be computed again.

Coordinates are (x, y) in pixels of the ORIGINAL photo, in two frames. Points and boxes name pixels, as everywhere in
samjax: (3, 4) is the centre of a pixel, and the photo reaches from -0.5 to half a pixel below its sides. What is drawn,
outlines and strokes, counts edges, as polygons of answers do: pixel (3, 4) covers [3, 4] x [4, 5].
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from samjax.ops.rle import RLE
from samjax.segment import Box, Point

MOST_POINTS = 1_000  # in a step
MOST_VERTICES = 20_000  # of all outlines of a step
MOST_STEPS = 1_000  # of an object


class BadRequest(ValueError):
    """A request that cannot be taken; the message says what can."""


@dataclasses.dataclass(frozen=True)
class Stroke:
    """A stroke of a brush: the pixels within `radius` pixels of a line through `points`; erased where `erase`.
    Pixel (0, 0) covers [0, 1] x [0, 1]."""

    points: tuple[tuple[float, float], ...]
    radius: float
    erase: bool = False


@dataclasses.dataclass(frozen=True)
class DrawnMask:
    """A binary mask as it was drawn or came from elsewhere: run lengths, filled outlines, then strokes on top.
    Pixel (0, 0) covers [0, 1] x [0, 1]."""

    rle: RLE | None = None  # of the photo's size
    outlines: tuple[tuple[tuple[float, float], ...], ...] = ()  # of a lasso; each is filled
    strokes: tuple[Stroke, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """One question to the decoder, and the choice among its answers.

    Args:
        points: (x, y, label), label 1 on the object and 0 beside it; all that hold at this step, not only the last.
            Integers name pixels.
        box: (x0, y0, x1, y1), likewise.
        mask: a mask prompt.
        refine: the logits of the answer chosen in the step before are the mask prompt; not together with `mask`.
        multimask: three answers for an ambiguous prompt instead of one.
        chosen: which of the answers, from 0.
    """

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask: DrawnMask | None = None
    refine: bool = False
    multimask: bool = True
    chosen: int = 0

    def __post_init__(self) -> None:
        if not (self.points or self.box or self.mask):
            raise BadRequest("a step needs points, a box or a mask; it has none")
        if self.mask is not None and self.refine:
            raise BadRequest("a step has a mask or refines the answer before it, not both")


def steps_from_json(given: Any) -> tuple[Step, ...]:
    """Steps from their JSON: a list, of which the first does not refine. Raises BadRequest."""
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_STEPS:
        raise BadRequest(f"steps are a list of 1 to {MOST_STEPS} objects, got {_shown(given)}")
    steps = tuple(map(step_from_json, given))
    if steps[0].refine:
        raise BadRequest("the first step cannot refine: there is no answer before it")
    return steps


def step_from_json(given: Any) -> Step:
    """A step from its JSON, whose fields are those of `Step`; what is missing has its default. Raises BadRequest."""
    _check_fields(given, Step, "a step")
    points = tuple(map(_point, _list(given.get("points", []), "points", MOST_POINTS)))
    box = given.get("box")
    mask = given.get("mask")
    chosen = given.get("chosen", 0)
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < 16:
        raise BadRequest(f"chosen is the number of an answer from 0, got {_shown(chosen)}")
    return Step(
        points,
        None if box is None else _box(box),
        None if mask is None else _drawn(mask),
        _flag(given, "refine", False),
        _flag(given, "multimask", True),
        chosen,
    )


def steps_to_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The JSON of steps, which `steps_from_json` reads; fields with their defaults are left out."""
    return [_plain(step) for step in steps]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields
            if field.default is dataclasses.MISSING or getattr(value, field.name) != field.default
        }
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _drawn(given: Any) -> DrawnMask:
    _check_fields(given, DrawnMask, "a mask")
    rle = given.get("rle")
    if rle is not None and (
        not isinstance(rle, dict) or not isinstance(rle.get("counts"), str) or not _is_size(rle.get("size"))
    ):
        raise BadRequest("a mask's rle is {size: [height, width], counts: TEXT}, as COCO has them")
    outlines = tuple(_line(line, 3, "an outline") for line in _list(given.get("outlines", []), "outlines", 1_000))
    strokes = tuple(map(_stroke, _list(given.get("strokes", []), "strokes", 1_000)))
    if sum(map(len, outlines)) + sum(len(stroke.points) for stroke in strokes) > MOST_VERTICES:
        raise BadRequest(f"a mask's outlines and strokes have more than {MOST_VERTICES} points")
    if rle is None and not outlines and not strokes:
        raise BadRequest("a mask needs rle, outlines or strokes; it has none")
    return DrawnMask(None if rle is None else {"size": rle["size"], "counts": rle["counts"]}, outlines, strokes)


def _stroke(given: Any) -> Stroke:
    _check_fields(given, Stroke, "a stroke")
    radius = _number(given.get("radius"), "a stroke's radius")
    if not 0 < radius <= 10_000:
        raise BadRequest(f"a stroke's radius is a number of pixels above 0, got {radius:g}")
    return Stroke(_line(given.get("points"), 1, "a stroke"), radius, _flag(given, "erase", False))


def _line(given: Any, least: int, what: str) -> tuple[tuple[float, float], ...]:
    points = _list(given, what, MOST_VERTICES)
    if len(points) < least:
        raise BadRequest(f"{what} has {least} points or more, got {len(points)}")
    return tuple(_numbers(point, 2, "a point is [x, y]") for point in points)  # pyright: ignore[reportReturnType]


def _point(given: Any) -> Point:
    x, y, label = _numbers(given, 3, "a point is [x, y, label]")
    if label not in (0, 1):
        raise BadRequest(f"a point's label is 1 (on the object) or 0 (beside it), got {label:g}")
    return x, y, int(label)


def _box(given: Any) -> Box:
    x0, y0, x1, y1 = _numbers(given, 4, "a box is [x0, y0, x1, y1]")
    if x0 >= x1 or y0 >= y1:
        raise BadRequest(f"a box is [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got {_shown(given)}")
    return x0, y0, x1, y1


def _numbers(given: Any, count: int, form: str) -> tuple[float, ...]:
    if not isinstance(given, list) or len(given) != count:
        raise BadRequest(f"{form}, got {_shown(given)}")
    return tuple(_number(number, form) for number in given)


def _number(given: Any, what: str) -> float:
    if not is_finite(given):
        raise BadRequest(f"{what}: {_shown(given)} is not a finite number")
    if abs(given) > 1e7:
        raise BadRequest(f"{what}: {_shown(given)} is no number of pixels")
    return float(given)


def is_finite(value: Any) -> bool:
    """True for numbers that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _flag(given: Mapping[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is true or false, got {_shown(value)}")
    return value


def _list(given: Any, what: str, most: int) -> list[Any]:
    if not isinstance(given, list) or len(given) > most:
        raise BadRequest(f"{what}: a list of at most {most} is wanted, got {_shown(given)}")
    return given


def _is_size(given: Any) -> bool:
    return (
        isinstance(given, list)
        and len(given) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in given)
    )


def _check_fields(given: Any, kind: Any, what: str) -> None:
    if not isinstance(given, dict):
        raise BadRequest(f"{what} is a JSON object, got {_shown(given)}")
    fields = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(given) - set(fields)):
        raise BadRequest(f"{what} has no {', '.join(map(str, unknown))[:100]}; its fields are {', '.join(fields)}")


def _shown(given: Any) -> str:
    try:
        text = repr(given)
    except (RecursionError, ValueError):  # nested too deep; an integer of too many digits
        text = f"a {type(given).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
