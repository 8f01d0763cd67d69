"""Results are complete files that another program, and a person, can read."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from samjax.evaluation import report
from samjax.evaluation.protocol import Curve, Figure, Summary
from samjax.readers.left_out import Problem, Reason

IDENTITY = {
    "protocol": "clicks",
    "settings": {"clicks": 20},
    "data": {"photos": 3},
    "model": {},
    "given": {"checkpoint": "vit_b"},
}
CLICKS = Figure(
    "iou_by_click",
    "clicks",
    "mean IoU",
    (
        Curve("samjax", range(1, 21), [1 - 0.6 / n for n in range(1, 21)]),
        Curve("other", range(1, 21), [1 - 0.7 / n for n in range(1, 21)]),
    ),
)
PRECISION = Figure(
    "precision_recall",
    "recall",
    "precision",
    (Curve("IoU 0.5", np.linspace(0, 1, 101).tolist(), (1 - np.linspace(0, 1, 101) ** 3).tolist()),),
)
SUMMARY = Summary(
    {"NoC@90": 5.25, "failures": 12, "AP small": math.nan, "mIoU@1": np.float64(0.5)},
    (CLICKS, PRECISION),
    {"seconds per click": 0.01},
)


def write(out, summary=SUMMARY, failures=None, left_out=None):
    failures = failures or {}
    counts = {"judged": 3, "failed": len(failures), "annotations_left_out": 2}
    return report.write(out, summary, IDENTITY, counts, failures, 1.25, left_out)


def test_the_json_is_strict_and_complete(tmp_path):
    write(tmp_path)
    found = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert list(found["metrics"].items()) == [
        ("NoC@90", 5.25),
        ("failures", 12),
        ("AP small", None),
        ("mIoU@1", 0.5),
    ]
    assert {name: found[name] for name in IDENTITY} == IDENTITY
    assert found["seconds"] == {"judging": 1.25, "seconds per click": 0.01}
    assert found["photos"] == {"judged": 3, "failed": 0, "annotations_left_out": 2}
    assert {"python", "samjax", "jax", "numpy", "pycocotools"} <= found["versions"].keys()
    curve = found["figures"]["iou_by_click"]["curves"][0]
    assert (curve["label"], curve["x"][:2], curve["y"][0]) == ("samjax", [1, 2], pytest.approx(0.4))


LEFT_OUT = report.LeftOut(
    Counter([Reason.UNREADABLE.value]),
    {"p1": [Problem("annotation 1", "no", Reason.MALFORMED), Problem("annotation 2", "it is empty", Reason.EMPTY)]},
    {"p0": [Problem("annotation 7", "its box is None", Reason.BOX)]},
    (
        Problem("x.png (masks)", "no photo", Reason.NO_PHOTO, stray="files"),
        Problem("y.png (masks)", "no photo", Reason.NO_PHOTO, stray="files"),
        Problem("image 9", "there is none", Reason.NO_PHOTO, stray="annotations", count=3),
    ),
)


def test_what_was_left_out_is_counted_in_json_and_named_in_a_file(tmp_path):
    paths = write(tmp_path, left_out=LEFT_OUT)
    assert json.loads((tmp_path / "results.json").read_text())["left_out"] == {
        "photos": {"unreadable": 1},
        "annotations": {"malformed": 1, "with an empty mask": 1, "without a photo": 3},
        "noted": {"with an unusable bbox": 1},
        "files": {"without a photo": 2},
    }
    assert tmp_path / "left_out.jsonl" in paths
    assert list(map(json.loads, (tmp_path / "left_out.jsonl").read_text().splitlines())) == [
        {"photo": "p1", "left_out": ["annotation 1: no", "annotation 2: it is empty"], "noted": []},
        {"photo": "p0", "left_out": [], "noted": ["annotation 7: its box is None"]},
        {"file": "x.png (masks)", "left_out": ["no photo"], "noted": []},
        {"file": "y.png (masks)", "left_out": ["no photo"], "noted": []},
        {"annotations": "image 9", "left_out": ["there is none"], "noted": []},
    ]
    write(tmp_path)
    assert not (tmp_path / "left_out.jsonl").exists()  # that of an earlier run


def test_the_table_has_aligned_numbers(tmp_path):
    write(tmp_path, left_out=LEFT_OUT)
    lines = (tmp_path / "results.txt").read_text().splitlines()
    assert lines == [
        "clicks: 3 photo(s)",
        "  NoC@90             5.2500",
        "  failures               12",
        "  AP small                -",
        "  mIoU@1             0.5000",
        "  seconds per click  0.0100",
        "left out: 1 photo (1 unreadable), 2 files (2 without a photo), 5 annotations (3 without a photo, 1 malformed, "
        "1 with an empty mask); used all the same: 1 annotation (1 with an unusable bbox); left_out.jsonl lists the "
        "files and annotations",
        "settings: clicks 20",
        "data: photos 3",
        "given: checkpoint vit_b",
    ]


def test_the_table_names_some_failures_and_counts_all(tmp_path):
    write(tmp_path, failures={f"p{number}": "is cut off" for number in range(15)})
    text = (tmp_path / "results.txt").read_text()
    assert "3 photo(s), 15 FAILED" in text
    assert text.endswith("  p9: is cut off\n  and 5 more, see results.json\n")
    assert len(json.loads((tmp_path / "results.json").read_text())["failures"]) == 15


def test_every_figure_is_a_picture_with_its_curves(tmp_path):
    paths = write(tmp_path)
    assert [path.name for path in paths] == ["results.json", "results.txt", "iou_by_click.png", "precision_recall.png"]
    with Image.open(tmp_path / "iou_by_click.png") as picture:
        assert picture.size == (900, 630)
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    drawn = {tuple(colour) for colour in np.unique(colours, axis=0).tolist()}
    assert {(31, 119, 180), (255, 127, 14)} <= drawn  # matplotlib's first two
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("x", "y"), [([1], [1]), ([0.0, 1.0], [0, 1]), ([], []), ([3, 4], [-0.5, math.nan])])
def test_every_curve_can_be_plotted(tmp_path, x, y):
    report.plot(Figure("a", "x", "y", (Curve("", x, y),)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_results_replace_earlier_ones(tmp_path):
    write(tmp_path)
    write(tmp_path, Summary({"NoC@90": 1.0}))
    assert json.loads((tmp_path / "results.json").read_text())["metrics"] == {"NoC@90": 1.0}


def test_without_matplotlib_there_are_no_plots_but_all_numbers(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.warns(UserWarning, match="plots need matplotlib"):
        paths = write(tmp_path)
    assert [path.name for path in paths] == ["results.json", "results.txt"]
