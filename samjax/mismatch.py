"""Differences between the parameters that a model expects and those that a checkpoint holds, with the nearest match."""

import difflib
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

SHOWN = 10  # names printed of each kind; the rest is counted
LONGEST_NAME = 120  # a hostile file may hold names of any length


def count_mismatches(expected: Shapes, found: Shapes) -> int:
    """The number of names that are missing, extra or misshaped."""
    return sum(expected.get(name) != found.get(name) for name in expected.keys() | found.keys())


def explain_mismatch(expected: Shapes, found: Shapes) -> str:
    """The names that are missing, extra and misshaped, with the nearest candidates; "" if there is none."""
    missing = {name: expected[name] for name in expected if name not in found}
    extra = {name: found[name] for name in found if name not in expected}
    misshaped = [name for name in expected if name in found and expected[name] != found[name]]
    sections = [
        _section(
            "missing",
            [f"{name} {shape}{_nearest(name, shape, extra)}" for name, shape in _first(missing)],
            len(missing),
        ),
        _section(
            "extra",
            [f"{shortened(name)} {shape}{_nearest(name, shape, missing)}" for name, shape in _first(extra)],
            len(extra),
        ),
        _section(
            "misshaped",
            [f"{name}: expected {expected[name]}, found {found[name]}" for name in misshaped[:SHOWN]],
            len(misshaped),
        ),
    ]
    return "\n".join(section for section in sections if section)


def _first(shapes: Shapes) -> list[tuple[str, tuple[int, ...]]]:
    return list(shapes.items())[:SHOWN]


def _section(title: str, lines: list[str], count: int) -> str:
    if not count:
        return ""
    more = [f"… and {count - len(lines)} more"] if count > len(lines) else []
    return "\n    ".join([f"  {title} ({count}):", *lines, *more])


def _nearest(name: str, shape: tuple[int, ...], candidates: Shapes) -> str:
    """A renamed parameter keeps its shape, so a candidate of the same shape is worth more than a similar name."""
    same_shape = [shortened(other) for other, its in candidates.items() if its == shape][:200]
    others = same_shape or [shortened(other) for other in candidates][:200]
    close = difflib.get_close_matches(shortened(name), others, n=1, cutoff=0.5)
    return f" (nearest: {close[0]})" if close else ""


def shortened(name: str) -> str:
    """A name from a file as one line of ASCII, cut where it is long."""
    name = name.encode("unicode_escape").decode()
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
