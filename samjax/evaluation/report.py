"""The results of an evaluation as files: results.json, a table to read, a plot for each figure."""

import dataclasses
import itertools
import json
import math
import platform
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from samjax.atomic import replacing
from samjax.evaluation.protocol import Figure, Summary
from samjax.names import portable, printable
from samjax.readers.left_out import Problem, Tally, count_by_reason, tally

RESULTS, TABLE, LEFT_OUT = "results.json", "results.txt", "left_out.jsonl"
LISTED = 10  # failures that the table names; results.json names all
_STRAY_KEYS = {"files": "file", "annotations": "annotations"}
_PACKAGES = ("samjax", "jax", "numpy", "scipy", "pycocotools")


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Photos that were not judged, by reason; annotations that were not, and those used despite a flaw, by photo; and
    files and annotations that belong to no photo."""

    photos: Counter[str] = dataclasses.field(default_factory=Counter)
    annotations: Mapping[str, Sequence[Problem]] = dataclasses.field(default_factory=dict)
    noted: Mapping[str, Sequence[Problem]] = dataclasses.field(default_factory=dict)
    strays: Sequence[Problem] = ()

    @property
    def tally(self) -> Tally:
        annotations, noted = (
            count_by_reason(itertools.chain.from_iterable(found.values())) for found in (self.annotations, self.noted)
        )
        total = Tally(self.photos.copy(), annotations, noted)
        total.add(tally(self.strays))
        return total

    def lines(self) -> list[str]:
        """One line of JSON for each photo, {"photo", "left_out": [text, ...], "noted": [text, ...]}, and for each
        stray, with "file" or "annotations" instead of "photo"."""
        kinds = {"left_out": self.annotations, "noted": self.noted}
        return [
            json.dumps(
                {"photo": photo, **{kind: list(map(str, found.get(photo, ()))) for kind, found in kinds.items()}}
            )
            for photo in {**self.annotations, **self.noted}
        ] + [
            json.dumps({_STRAY_KEYS[stray.stray]: stray.what, "left_out": [stray.detail], "noted": []})
            for stray in self.strays
        ]


def write(
    out: Path,
    summary: Summary,
    identity: Mapping[str, Any],
    photos: Mapping[str, int],
    failures: Mapping[str, str],
    seconds: float,
    left_out: LeftOut | None = None,
) -> list[Path]:
    """Writes all files, each complete or not at all, over those of an earlier run; returns them.

    Args:
        out: the folder.
        summary: what was found. A metric that is not finite, because nothing in the data defines it, is null in JSON.
        identity: "protocol", "settings", "data" and "model" of the run, and what it was "given", as JSON.
        photos: how many were "judged" and "failed", and how many "annotations_left_out" there are.
        failures: by photo, why.
        seconds: that judging took, of all processes together.
        left_out: what was not judged, and why.
    """
    left_out = left_out or LeftOut()
    tally = left_out.tally
    results = {
        "protocol": identity["protocol"],
        "metrics": {name: _finite(value) for name, value in summary.metrics.items()},
        "photos": dict(photos),
        "left_out": {name: dict(counts) for name, counts in vars(tally).items()},
        "failures": {portable(name): portable(reason) for name, reason in failures.items()},
        "settings": identity["settings"],
        "data": identity["data"],
        "model": identity["model"],
        "given": {name: portable(value) for name, value in identity["given"].items()},
        "versions": versions(),
        "seconds": {"judging": round(seconds, 3), **summary.seconds},
        "figures": {
            figure.name: {
                "x": figure.x_label,
                "y": figure.y_label,
                "curves": [
                    {"label": curve.label, "x": [_finite(x) for x in curve.x], "y": [_finite(y) for y in curve.y]}
                    for curve in figure.curves
                ],
            }
            for figure in summary.figures
        },
    }
    texts = {
        out / RESULTS: json.dumps(results, indent=1, allow_nan=False) + "\n",
        out / TABLE: table(summary, identity, photos, failures, tally),
    }
    if lines := left_out.lines():
        texts[out / LEFT_OUT] = "".join(f"{line}\n" for line in lines)
    else:
        (out / LEFT_OUT).unlink(missing_ok=True)
    for path, text in texts.items():
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [*texts, *_plot_all(out, summary)]


def table(
    summary: Summary,
    identity: Mapping[str, Any],
    photos: Mapping[str, int],
    failures: Mapping[str, str],
    tally: Tally,
) -> str:
    """The results as aligned text."""
    rows = [(name, _number(value)) for name, value in (summary.metrics | summary.seconds).items()]
    count = f"{photos['judged']} photo(s)" + (f", {photos['failed']} FAILED" if photos["failed"] else "")
    wide = max((len(name) for name, _ in rows), default=0)
    right = max((len(value) for _, value in rows), default=0)
    lines = [f"{identity['protocol']}: {count}", *(f"  {name:<{wide}}  {value:>{right}}" for name, value in rows)]
    if tally:
        lines.append(str(tally))
        kinds = {"files": tally.files, "annotations": tally.annotations or tally.noted}
        if listed := " and ".join(kind for kind, counts in kinds.items() if counts):
            lines[-1] += f"; {LEFT_OUT} lists the {listed}"
    for part in ("settings", "data", "model", "given"):
        described = printable(", ".join(f"{name} {value}" for name, value in identity[part].items()))
        lines += [f"{part}: {described}"] if described else []
    if failures:
        lines += ["photos that failed and are in no number above:"]
        lines += [printable(f"  {name}: {reason}") for name, reason in list(failures.items())[:LISTED]]
        lines += [f"  and {len(failures) - LISTED} more, see {RESULTS}"] if len(failures) > LISTED else []
    return "\n".join(lines) + "\n"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that influence the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def plot(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    canvas = Canvas(figsize=(6.0, 4.2), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    for curve in figure.curves:
        axes.plot(curve.x, curve.y, label=curve.label, linewidth=1.8, marker="o" if len(curve.x) <= 30 else None)
    xs, ys = ([value for curve in figure.curves for value in getattr(curve, axis)] for axis in ("x", "y"))
    if xs and all(isinstance(x, int) for x in xs):  # counts: clicks, points
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    else:
        axes.set_xlim(*_share_limits(xs) or axes.get_xlim())
    axes.set_ylim(*_share_limits(ys) or axes.get_ylim())
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(figure.curves) > 1 or (figure.curves and figure.curves[0].label):
        axes.legend(frameon=False)
    with replacing(path, overwrite=True) as temporary:
        canvas.savefig(temporary, format="png", dpi=150)


def _plot_all(out: Path, summary: Summary) -> list[Path]:
    if not summary.figures:
        return []
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        warnings.warn(
            "plots need matplotlib: pip install 'samjax[evaluate]'; the same command then adds them", stacklevel=2
        )
        return []
    paths = [out / f"{figure.name}.png" for figure in summary.figures]
    for figure, path in zip(summary.figures, paths, strict=True):
        plot(figure, path)
    return paths


def _share_limits(values: list[float | int]) -> tuple[float, float] | None:
    """Axes of shares go from 0 to 1, whatever the curve does."""
    finite = [value for value in values if math.isfinite(value)]
    return (0.0, 1.02) if finite and min(finite) >= 0 and max(finite) <= 1 else None


def _finite(value: Any) -> float | int | None:
    number = value.item() if hasattr(value, "item") else value
    return number if math.isfinite(number) else None


def _number(value: Any) -> str:
    """Counts as they are, else four digits behind the point; a dash where nothing in the data defines it."""
    number = _finite(value)
    if number is None:
        return "-"
    return str(number) if isinstance(number, int) else f"{number:.4f}"
