"""Label maps; Pillow and SciPy are the oracles."""

import io

import numpy as np
import pytest
import tifffile
from example_annotations import decoded, jpeg, png
from PIL import Image
from pycocotools import mask as coco
from scipy import ndimage

from samjax.readers.labelmap import LabelMaps
from samjax.readers.record import BadRecord


@pytest.fixture
def labels() -> np.ndarray:
    """Two discs of label 1 that do not touch, a bar of label 2, void (255) between."""
    y, x = np.mgrid[:40, :60]
    labels = np.zeros((40, 60), np.uint8)
    labels[(x - 12) ** 2 + (y - 12) ** 2 < 64] = 1
    labels[(x - 45) ** 2 + (y - 12) ** 2 < 100] = 1
    labels[30:] = 2
    labels[28:30] = 255
    return labels


def palette(labels: np.ndarray) -> bytes:
    """VOC's PNG: indices into a palette whose colours repeat."""
    picture = Image.fromarray(labels)
    picture.putpalette([(index * 37) % 256 // 64 * 64 for index in range(768)])
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def tiff(labels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(labels).save(data, "TIFF", compression="tiff_lzw")
    return data.getvalue()


def only(tmp_path, write, photo, data: bytes, ending: str = "png", **options):
    """The record of one photo with this map."""
    write(tmp_path, {"JPEGImages/a.jpg": jpeg(photo), f"maps/a.{ending}": data})
    return LabelMaps(str(tmp_path / "JPEGImages"), str(tmp_path / "maps"), **options)[0]


def test_palettes_are_read_by_index_and_void_is_nothing(tmp_path, write, photo, labels):
    assert Image.open(io.BytesIO(palette(labels))).mode == "P"
    record = only(tmp_path, write, photo, palette(labels))
    np.testing.assert_array_equal(decoded(record), [labels == 1, labels == 2])
    np.testing.assert_array_equal(coco.decode(record.void), labels == 255)
    assert (record.name, record.ids, record.categories) == ("a.jpg", (1, 2), (None, None))


@pytest.mark.parametrize(
    ("legend", "classes"),
    [
        (b'{"1": {"class": "disc"}, "9": {"class": "none"}}', ("disc", None)),
        (b'{"version": "5.5.0", "shapes": []}', ()),  # labelme's
        (b'[{"id": 1}]', ()),
        (b"\xff{", ()),
    ],
)
def test_a_legend_beside_the_map_names_its_classes(tmp_path, write, photo, labels, legend, classes):
    write(tmp_path, {"maps/a.json": legend})
    assert only(tmp_path, write, photo, png(labels)).classes == classes
    assert only(tmp_path, write, photo, png(labels), each="region").classes == ()


@pytest.mark.parametrize("write_map", [png, tiff])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_instance_maps_have_a_mask_for_each_number(tmp_path, write, photo, labels, write_map, dtype):
    if (write_map, dtype) == (png, np.int32):
        pytest.skip("PNG has 16 bits at most")
    numbers = np.where(labels == 255, 0, labels).astype(dtype)
    if dtype != np.uint8:
        numbers[numbers == 2] = 255  # a number like others where there are more than 255
        numbers[0, 0] = 40_000
    record = only(tmp_path, write, photo, write_map(numbers), "tif" if write_map is tiff else "png")
    expected = [numbers == value for value in np.unique(numbers) if value]
    np.testing.assert_array_equal(decoded(record), expected)
    assert record.ids == tuple(np.unique(numbers[numbers > 0]).tolist())
    assert record.void is None


@pytest.mark.parametrize(("dtype", "factor"), [("uint32", 1_400_000_000), ("int64", 2**60), ("uint64", 2**63)])
def test_large_numbers_lose_no_object(tmp_path, write, photo, labels, dtype, factor):
    numbers = np.where(labels == 255, 0, labels)
    data = io.BytesIO()
    tifffile.imwrite(data, (numbers > 0) * np.array(factor, dtype) + numbers.astype(dtype))
    record = only(tmp_path, write, photo, data.getvalue(), "tif")
    np.testing.assert_array_equal(decoded(record), [labels == 1, labels == 2])
    assert record.ids == (factor + 1, factor + 2)


def test_regions_of_classes_are_those_of_scipy(tmp_path, write, photo, labels):
    labels[20, 5], labels[21, 6] = 1, 1  # touch at a corner
    record = only(tmp_path, write, photo, palette(labels), each="region")
    expected = [
        region == number + 1
        for label in (1, 2)
        for region, count in [ndimage.label(labels == label, np.ones((3, 3)))]
        for number in range(count)
    ]
    assert len(expected) == 4
    np.testing.assert_array_equal(decoded(record), expected)
    assert record.ids == ("1/1", "1/2", "1/3", "2/1")
    assert record.categories == (1, 1, 1, 2)


def test_human_segmentations_as_16_bit_maps(tmp_path, write, test_data):
    from scipy.io import loadmat

    from samjax import read_image

    truth = loadmat(test_data / "bsds500" / "groundTruth" / "val" / "101085.mat")["groundTruth"]
    segments = truth[0, 0]["Segmentation"][0, 0]
    photo = (test_data / "bsds500" / "images" / "val" / "101085.jpg").read_bytes()
    write(tmp_path, {"images/101085.jpg": photo, "maps/101085.png": png(segments.astype(np.uint16))})
    record = LabelMaps(str(tmp_path / "images"), str(tmp_path / "maps"))[0]
    np.testing.assert_array_equal(record.rgb, read_image(test_data / "bsds500" / "images" / "val" / "101085.jpg"))
    masks = decoded(record)
    assert (masks.sum(0) == 1).all()
    np.testing.assert_array_equal(masks.sum((1, 2)), np.bincount(segments.ravel())[1:])


def test_maps_of_our_own_output_are_read(tmp_path, write, photo, labels):
    write(tmp_path, {"a.jpg": jpeg(photo), "a_labels.png": png(labels.astype(np.uint16)), "b.jpg": jpeg(photo)})
    source = LabelMaps(str(tmp_path), str(tmp_path))
    assert len(source) == 1
    assert len(source[0].masks) == 3  # 255 too: the map has 16 bits


WRONG = {
    "size": (lambda labels: png(labels[:30]), "60 x 30 pixels, the photo 60 x 40"),
    "colours": (lambda labels: png(np.stack([labels] * 3, -1)), "one number a pixel"),
    "fractions": (lambda labels: tiff(labels / np.float32(3)), "whole numbers"),
    "lossy": (jpeg, "JPEG, which is lossy"),
    "damage": (lambda labels: png(labels)[:60], "cannot be read as an image"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_map_is_said(tmp_path, write, photo, labels, case):
    harm, expected = WRONG[case]
    with pytest.raises(BadRecord, match=expected):
        only(tmp_path, write, photo, harm(labels), "tif" if case == "fractions" else "png")


@pytest.mark.parametrize("each", ["label", "region"])
def test_a_map_without_labels_is_a_photo_without_objects(tmp_path, write, photo, labels, each):
    record = only(tmp_path, write, photo, png(np.zeros_like(labels)), each=each)
    assert record.masks == record.problems == ()
    assert record.void is None


@pytest.mark.parametrize("each", ["label", "region"])
@pytest.mark.parametrize("background", [0, 255])
def test_a_binary_mask_of_0_and_255_is_no_label_map(tmp_path, write, photo, labels, background, each):
    mask = np.where(labels == 1, 255, background).astype(np.uint8)
    with pytest.raises(BadRecord, match=r"no number but 255, which is void .* a binary mask is given as pairs="):
        only(tmp_path, write, photo, png(mask), each=each)


def test_maps_and_photos_meet_by_name(tmp_path, write, photo, labels):
    names = ["x/a.jpg", "y/a.jpeg", "b.png", "two.jpg", "two.png", "alone.jpg"]
    maps = ["x/a.png", "y/a.tif", "b_labels.png", "two.png", "c.png", ".hidden.png", "__MACOSX/b.png"]
    write(tmp_path / "images", {name: jpeg(photo) for name in names})
    write(tmp_path / "maps", {name: (tiff if name.endswith("tif") else png)(labels) for name in maps})
    source = LabelMaps(str(tmp_path / "images"), str(tmp_path / "maps"))
    found = {}
    for index in range(len(source)):
        try:
            found[source.name(index)] = len(source[index].masks)
        except BadRecord as error:
            found[source.name(index)] = str(error)
    assert {name: count for name, count in found.items() if count == 2} == {"x/a.jpg": 2, "y/a.jpeg": 2, "b.png": 2}
    assert found["c.png (masks)"].startswith("there is no photo of this name")
    assert "2 photos of this name" in found["two.jpg"]
    assert "alone.jpg" not in found
    with pytest.raises(ValueError, match="no photo with a label map"):
        LabelMaps(str(tmp_path / "images" / "x"), str(tmp_path / "images"))
