"""labelme's files; its own `shape_to_mask` is the oracle where it is installed."""

import base64
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from example_annotations import decoded, jpeg, png
from PIL import Image, ImageDraw, ImageOps

from samjax.readers.labelme import Labelme, mask_from_shape
from samjax.readers.left_out import Reason
from samjax.readers.record import BadRecord

SIZE = (40, 60)
SHAPES = [
    ("polygon", [[3.2, 4.7], [30.1, 6.0], [20.9, 33.4]]),
    ("polygon", [[-3.0, 10.0], [20.5, -2.0], [62.0, 30.0], [10.0, 43.0]]),
    ("rectangle", [[10.4, 5.6], [30.2, 20.9]]),
    ("rectangle", [[30.2, 20.9], [10.4, 5.6]]),
    ("circle", [[30.5, 20.0], [38.2, 24.0]]),
    ("circle", [[2.0, 3.0], [7.0, 3.0]]),
    ("circle", [[9.0, 20.0], [40.0, 20.0]]),
    ("circle", [[-2.0, 41.0], [30.0, 20.0]]),
    ("circle", [[30.0, 20.0], [62.0, 43.0]]),
    ("circle", [[30.0, 20.0], [30.0, 72.5]]),  # with its rim far out
    ("circle", [[30.0, 32.0], [30.0, 52.0]]),
    ("circle", [[-20.0, 55.0], [10.0, 20.0]]),  # with its centre out
    ("circle", [[70.0, 20.0], [59.5, 20.0]]),
    ("oriented_rectangle", [[10.0, 5.0], [20.0, 10.0], [15.0, 20.0], [5.0, 15.0]]),
]


@pytest.fixture
def shape_to_mask(monkeypatch):
    """labelme's own, without the graphical interface that its package imports beside it."""
    package = importlib.util.find_spec("labelme")
    if package is None or not package.submodule_search_locations:
        pytest.skip("labelme is not installed (pip install --no-deps labelme)")
    path = Path(package.submodule_search_locations[0], "utils", "shape.py")
    label_file = types.ModuleType("labelme._label_file")
    label_file.ShapeDict = dict
    labelme = types.ModuleType("labelme")
    labelme._label_file = label_file
    for name, module in {"labelme": labelme, "labelme._label_file": label_file}.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("labelme_shape", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.shape_to_mask


@pytest.mark.parametrize(("kind", "points"), SHAPES)
def test_shapes_are_drawn_as_labelme_does(shape_to_mask, kind, points):
    expected = shape_to_mask(SIZE, sorted(points) if kind == "rectangle" else points, kind)
    assert expected.any()
    np.testing.assert_array_equal(mask_from_shape({"shape_type": kind, "points": points}, SIZE), expected)


CORNERS = [[10.0, 5.0], [20.0, 10.0], [15.0, 20.0], [5.0, 15.0]]


@pytest.mark.parametrize(
    "kind", ["rectangle", "rotation", "quadrilateral", "oriented_rectangle", "ai_polygon", "Polygon"]
)
def test_shapes_of_other_tools_are_polygons(shape_to_mask, kind):
    expected = shape_to_mask(SIZE, CORNERS, "polygon")
    np.testing.assert_array_equal(
        mask_from_shape({"shape_type": kind, "points": CORNERS, "direction": 0.46}, SIZE), expected
    )


def test_four_corners_of_a_rectangle_are_its_two(shape_to_mask):
    four = [[10.4, 5.6], [30.2, 5.6], [30.2, 20.9], [10.4, 20.9]]
    two = shape_to_mask(SIZE, [four[0], four[2]], "rectangle")
    np.testing.assert_array_equal(mask_from_shape({"shape_type": "rectangle", "points": four}, SIZE), two)


@pytest.mark.parametrize(
    ("points", "kind", "message"),
    [
        ([[3, 4]], "rectangle", "a rectangle has 2 points, opposite corners, or all 4, this one 1"),
        ([[3, 4], [9, 9]], "rotation", "a rotation has 3 points or more, this one 2"),
        ([[3, 4], [9, 9], [9, 3]], "circle", "a circle has 2 points, this one 3"),
        ([[3, 4], [9, 9], [9, 3]], "cuboid", "shape_type 'cuboid' is unknown; known are polygon, rectangle"),
        ([[3, 4], [9, 9], [9, 3]], ["polygon"], r"shape_type \['polygon'\] is unknown"),
        ([[3, 4], [9, 9], [9, 10**400]], "polygon", "its points are no list of"),
    ],
)
def test_what_is_wrong_with_a_shape_is_said(points, kind, message):
    with pytest.raises(ValueError, match=message):
        mask_from_shape({"shape_type": kind, "points": points}, SIZE)


def test_a_circle_has_its_area_and_a_rectangle_its_corners():
    disc = mask_from_shape({"shape_type": "circle", "points": [[30, 20], [40, 20]]}, SIZE)
    assert abs(disc.sum() - np.pi * 10.5**2) < 12
    assert disc[20, 20]
    assert disc[20, 40]
    assert not disc[20, 41]
    rectangle = mask_from_shape({"shape_type": "rectangle", "points": [[4, 5], [9, 7]]}, SIZE)
    assert rectangle.sum() == 6 * 3
    assert rectangle[5:8, 4:10].all()


def test_a_circle_with_its_rim_out_of_the_photo_is_cut_off():
    photo = Image.new("L", (120, 100))
    ImageDraw.Draw(photo).ellipse([60 - 69, 50 - 69, 60 + 69, 50 + 69], outline=1, fill=1)
    disc = mask_from_shape({"shape_type": "circle", "points": [[60, 50], [60, 119]]}, (100, 120))
    np.testing.assert_array_equal(disc, np.asarray(photo).astype(bool))
    assert 11_000 < disc.sum() < 100 * 120


@pytest.mark.parametrize(
    ("points", "reason", "message"),
    [
        (
            [[80, 20], [90, 20]],
            Reason.OUTSIDE,
            r"around \(80, 20\) with the radius 10 has no part in the photo of 60 x 40",
        ),
        ([[30, -30], [30, -25]], Reason.OUTSIDE, "has no part in the photo"),
        ([[1e300, 20], [1e300, 25]], Reason.OUTSIDE, "has no part in the photo"),
        ([[75, 55], [75, 40]], Reason.OUTSIDE, "has no part in the photo"),  # its box alone meets the photo
        ([[30, 20], [30, 1e9]], Reason.OUTSIDE, "has a radius of 1e.09 pixels, more than 100000"),
        ([[30, 20], [30, float("nan")]], Reason.MALFORMED, "its circle holds NaN or infinity"),
    ],
)
def test_a_circle_that_does_not_meet_the_photo_is_out_of_it(points, reason, message):
    with pytest.raises(ValueError, match=message) as caught:
        mask_from_shape({"shape_type": "circle", "points": points}, SIZE)
    assert caught.value.reason == reason


def shape(kind: str, points: list, group=None, label: str = "cell", **more) -> dict:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **more}


def content(shapes: list[dict], **more) -> bytes:
    whole = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.jpg", "imageData": None}
    return json.dumps({**whole, "imageHeight": 40, "imageWidth": 60, **more}).encode()


@pytest.fixture
def opened(tmp_path, write, photo):
    """The record of a file with these shapes beside a.jpg."""

    def opened(shapes: list[dict], **more):
        write(tmp_path / "set", {"a.json": content(shapes, **more), "a.jpg": jpeg(photo)})
        return Labelme(str(tmp_path / "set"))[0]

    return opened


def test_parts_of_a_group_are_one_mask(opened):
    boxes = [[[2, 2], [8, 8]], [[20, 20], [30, 30]], [[40, 2], [50, 9]], [[40, 20], [50, 30]], [[5, 30], [9, 36]]]
    groups = [(1, "cell"), (None, "cell"), (1, "cell"), (1, "dirt"), (None, "cell")]
    shapes = [shape("rectangle", box, *group) for box, group in zip(boxes, groups, strict=True)]
    parts = [mask_from_shape(found, SIZE) for found in shapes]
    record = opened(shapes)
    assert record.name == "a"
    np.testing.assert_array_equal(decoded(record), [parts[0] | parts[2], parts[1], parts[3], parts[4]])


def test_an_object_s_label_is_its_class(opened):
    corners = [[4, 5], [9, 7]]
    shapes = [shape("rectangle", corners, label=label) for label in ("cat", "", None, 7)]
    assert opened(shapes).classes == ("cat", None, None, None)


def test_masks_lie_between_their_corners(opened, masks):
    part = masks[0][5:26, 10:31]
    encoded = base64.b64encode(png(part.astype(np.uint8))).decode()
    outside = base64.b64encode(png(np.ones((6, 6), np.uint8))).decode()
    record = opened(
        [
            shape("mask", [[10, 5], [30, 25]], mask=encoded),
            shape("mask", [[-2, -3], [3, 2]], mask=outside),
            shape("mask", [[10, 5], [31, 25]], mask=encoded),
        ]
    )
    corner = np.zeros(SIZE, bool)
    corner[:3, :4] = True
    np.testing.assert_array_equal(decoded(record), [masks[0], corner])
    assert "21 x 21 pixels, its corners span 22 x 21" in record.problems[0].detail


def test_what_has_no_area_is_left_out_with_a_note(opened):
    record = opened(
        [
            shape("point", [[3, 4]]),
            shape("linestrip", [[3, 4], [9, 9], [20, 2]]),
            shape("line", [[3, 4], [9, 9]]),
            shape("polygon", [[3, 4], [9, 9]]),
            shape("star", [[3, 4], [9, 9]]),
            shape("polygon", [[3, 4], [9, 9], [500, 20]]),
            shape("circle", [[80, 20], [85, 20]]),
            shape("polygon", [[3, 4], [9, None], [5, 20]]),
            "no shape",
            shape("polygon", [[3, 4], [19, 9], [5, 20]]),
        ]
    )
    assert len(record.masks) == 1
    assert [problem.what for problem in record.problems] == [f"shape number {i}" for i in range(9)]
    assert str(record.problems[0]) == "shape number 0: a point has no area"
    assert [problem.reason for problem in record.problems] == [
        *([Reason.NO_AREA] * 4),
        Reason.UNKNOWN_KIND,
        *([Reason.OUTSIDE] * 2),
        *([Reason.MALFORMED] * 2),
    ]


TRIANGLE = [shape("polygon", [[3, 4], [19, 9], [5, 20]])]


@pytest.mark.parametrize("sizes", [("40", "60"), (40.0, 60.0), ("40.0", " 60 "), (None, None), (0, "")])
def test_sizes_may_be_text_or_floats(opened, sizes):
    height, width = sizes
    assert len(opened(TRIANGLE, imageHeight=height, imageWidth=width).masks) == 1
    with pytest.raises(BadRecord, match="60 x 41 pixels, the photo has 60 x 40") as caught:
        opened(TRIANGLE, imageHeight="41", imageWidth=width)
    assert caught.value.reason == Reason.SIZE


def test_a_file_without_shapes_is_a_photo_without_objects(opened):
    record = opened([])
    assert record.masks == record.problems == ()


def test_groups_may_be_numbered_in_text(opened):
    boxes = [[[2, 2], [8, 8]], [[20, 20], [30, 30]], [[40, 2], [50, 9]], [[40, 20], [50, 30]]]
    record = opened([shape("rectangle", box, group) for box, group in zip(boxes, [1, "1", 1.0, ""], strict=True)])
    assert len(record.masks) == 2


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photos_are_turned_as_labelme_shows_them(tmp_path, write, photo, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    write(tmp_path, {"a.jpg": jpeg(photo, exif=exif)})
    with Image.open(tmp_path / "a.jpg") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    height, width = expected.shape[:2]
    write(tmp_path, {"a.json": content(TRIANGLE, imageHeight=height, imageWidth=width)})
    record = Labelme(str(tmp_path))[0]
    np.testing.assert_array_equal(record.rgb, expected)
    assert record.masks[0]["size"] == [height, width]


def test_embedded_photos_come_first(opened, photo):
    inside = np.ascontiguousarray(photo[::-1])
    record = opened(TRIANGLE, imageData=base64.b64encode(png(inside)).decode())
    np.testing.assert_array_equal(record.rgb, inside)


def test_photos_are_found_relative_to_the_file(tmp_path, write, photo):
    write(
        tmp_path,
        {
            "photos/a.jpg": jpeg(photo),
            "set/one/1.json": content(TRIANGLE, imagePath="..\\..\\photos\\a.jpg"),
            "set/two/2.json": content(TRIANGLE, imagePath="C:\\Users\\me\\b.jpg"),
            "set/two/b.jpg": jpeg(photo),
            "set/two/3.json": content(TRIANGLE, imagePath=str(tmp_path / "photos" / "a.jpg")),
            "set/4.json": content(TRIANGLE, imagePath="nowhere.jpg"),
        },
    )
    source = Labelme(str(tmp_path / "set"))
    assert [source.name(index) for index in range(4)] == ["4", "one/1", "two/2", "two/3"]
    assert all(len(source[index].masks) == 1 for index in (1, 2, 3))
    with pytest.raises(BadRecord, match=r"nowhere\.jpg"):
        source[0]


def test_one_photo_beside_the_files_is_not_taken_for_two(tmp_path, write, photo):
    names = {"1.json": "a/1.jpg", "2.json": "b\\1.jpg", "3.json": "elsewhere/3.jpg"}
    write(tmp_path, {name: content(TRIANGLE, imagePath=path) for name, path in names.items()})
    write(tmp_path, {"1.jpg": jpeg(photo), "3.jpg": jpeg(photo)})
    source = Labelme(str(tmp_path))
    for index in (0, 1):
        with pytest.raises(BadRecord, match=r"1\.jpg beside the JSON files may be any of a/1\.jpg, b/1\.jpg") as caught:
            source[index]
        assert caught.value.reason == Reason.AMBIGUOUS
    assert len(source[2].masks) == 1
    write(tmp_path, {"b/1.jpg": jpeg(photo)})
    assert len(source[1].masks) == 1


def test_bad_files_are_bad_records(tmp_path, write, opened):
    for text, expected in [
        (b"{", "JSON cannot be read"),
        (b"[]", "no file of labelme"),
        (b'{"shapes": []}', "names no photo"),
        (content(TRIANGLE, imageHeight=60, imageWidth=40), "40 x 60 pixels, the photo has 60 x 40"),
        (content(TRIANGLE, imageData="%%%"), "imageData|base64"),
    ]:
        opened(TRIANGLE)
        write(tmp_path / "set", {"a.json": text})
        with pytest.raises(BadRecord, match=expected):
            Labelme(str(tmp_path / "set"))[0]
    with pytest.raises(ValueError, match=r"no \.json file"):
        Labelme(str(write(tmp_path / "empty", {"a.txt": b""})))


def test_our_own_output_is_read(tmp_path):
    from samjax.ops.rle import encode_rle
    from samjax.writers import FORMATS, Options, Photo, SegmentedPhoto

    y, x = np.mgrid[:80, :120]
    disc = (x - 40) ** 2 + (y - 40) ** 2 < 30**2
    path = tmp_path / "disc.png"
    path.write_bytes(png(np.zeros((80, 120, 3), np.uint8)))
    records = [{"segmentation": encode_rle(disc), "predicted_iou": 0.9, "stability_score": 0.9}]
    photo = SegmentedPhoto(Photo(path, "disc.png", "disc"), np.zeros((80, 120, 3), np.uint8), records)
    FORMATS["labelme"].write(photo, tmp_path, Options(polygon_tolerance=0.0))
    (mask,) = decoded(Labelme(str(tmp_path / "labelme"))[0])
    assert (mask & disc).sum() / (mask | disc).sum() > 0.94  # labelme draws outlines too
