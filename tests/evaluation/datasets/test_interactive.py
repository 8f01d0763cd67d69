"""GrabCut, Berkeley and DAVIS in the layouts of RITM's data, with the rules of its loaders."""

import cv2
import numpy as np
import pytest
from example_annotations import jpeg
from PIL import Image
from pycocotools import mask as coco

from samjax.evaluation.datasets import open_dataset
from samjax.evaluation.protocol import Dataset
from samjax.readers.record import BadRecord


def test_grabcut_has_a_void_border_around_its_object(tmp_path, picture, photo, disc, bar):
    trimap = np.where(disc, 255, np.where(bar, 128, 0)).astype(np.uint8)
    trimap[0, :4] = 64, 127, 129, 254  # RITM: above 128 is the object, below is not
    picture(tmp_path / "data_GT/flower.jpg", photo)
    picture(tmp_path / "data_GT/21077.bmp", photo)
    picture(tmp_path / "boundary_GT/flower.bmp", trimap)
    picture(tmp_path / "boundary_GT/21077.bmp", np.repeat(trimap[:, :, None], 3, 2))
    dataset = open_dataset(f"grabcut={tmp_path}")
    assert isinstance(dataset, Dataset)
    assert [dataset.name(index) for index in range(len(dataset))] == ["21077", "flower"]
    for sample in (dataset[0], dataset[1]):
        (found,) = sample.objects
        inside = disc.copy()
        inside[0, 2:4] = True
        np.testing.assert_array_equal(coco.decode(found.mask), inside)
        np.testing.assert_array_equal(coco.decode(found.ignore), bar)
        assert found.id == 1
    np.testing.assert_array_equal(dataset[0].rgb, photo)


def test_of_colours_the_blue_counts_as_it_does_in_opencv(tmp_path, picture, photo, disc, bar):
    colours = np.zeros((40, 60, 3), np.uint8)
    colours[:, :, 0] = np.where(bar, 255, 0)
    colours[:, :, 2] = np.where(disc, 255, 0)
    picture(tmp_path / "data_GT/a.bmp", photo)
    picture(tmp_path / "boundary_GT/a.bmp", colours)
    (found,) = open_dataset(f"grabcut={tmp_path}")[0].objects
    np.testing.assert_array_equal(coco.decode(found.mask), disc)
    blue = cv2.imread(str(tmp_path / "boundary_GT/a.bmp"))[:, :, 0]
    np.testing.assert_array_equal(coco.decode(found.mask), blue > 128)


def test_berkeley_has_a_mask_for_each_photo(tmp_path, picture, photo, disc):
    picture(tmp_path / "images/x.jpg", photo)
    picture(tmp_path / "masks/x.png", np.where(disc, 255, 0).astype(np.uint8))
    sample = open_dataset(f"berkeley={tmp_path}")[0]
    (found,) = sample.objects
    np.testing.assert_array_equal(coco.decode(found.mask), disc)
    assert found.ignore is None
    assert sample.name == "x"


def test_davis_has_one_object_of_all_that_is_not_black(tmp_path, picture, photo, disc, bar):
    labels = np.where(bar, 2, np.where(disc, 1, 0)).astype(np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 3, 0])
    for name in ("bear_0", "bear_1"):
        picture(tmp_path / f"img/{name}.jpg", photo)
    (tmp_path / "gt").mkdir()
    palette.save(tmp_path / "gt/bear_0.png")
    palette.convert("RGB").save(tmp_path / "gt/bear_1.png")
    dataset = open_dataset(f"davis={tmp_path}")
    for sample in (dataset[0], dataset[1]):
        (found,) = sample.objects
        np.testing.assert_array_equal(coco.decode(found.mask), disc | bar)
        assert found.ignore is None


def test_other_layouts_are_named_with_what_is_there(tmp_path, picture, photo, disc):
    mask = np.where(disc, 255, 0).astype(np.uint8)
    for name in ("a", "b"):
        picture(tmp_path / f"img/{name}.jpg", photo)
    picture(tmp_path / "gt/a.png", mask)
    expected = r"grabcut=.*: expected the folders data_GT and boundary_GT in .*, found gt/, img/"
    with pytest.raises(ValueError, match=expected):
        open_dataset(f"grabcut={tmp_path}")
    with pytest.raises(ValueError, match=r"for each photo in .*img; for b\.jpg there is none"):
        open_dataset(f"davis={tmp_path}")
    picture(tmp_path / "gt/b.png", mask)
    picture(tmp_path / "gt/b.bmp", mask)
    with pytest.raises(ValueError, match=r"for b\.jpg there are b\.bmp, b\.png"):
        open_dataset(f"davis={tmp_path}")
    (tmp_path / "gt/b.bmp").unlink()
    picture(tmp_path / "img/b.png", photo)
    with pytest.raises(ValueError, match="found two called b"):
        open_dataset(f"davis={tmp_path}")


def test_what_is_wrong_with_a_mask_is_said(tmp_path, picture, photo):
    picture(tmp_path / "img/a.jpg", photo)
    mask = picture(tmp_path / "gt/a.png", np.zeros((40, 60), np.uint8))
    dataset = open_dataset(f"davis={tmp_path}")
    with pytest.raises(BadRecord, match=r"a\.png has no object's pixels: its mask is empty"):
        dataset[0]
    picture(mask, np.ones((20, 60), np.uint8))
    with pytest.raises(BadRecord, match=r"a\.png has 60 x 20 pixels, the photo 60 x 40"):
        dataset[0]
    picture(mask, np.ones((40, 60), np.uint16))
    with pytest.raises(BadRecord, match="is a picture in I;16; expected a mask in grey"):
        dataset[0]
    mask.write_bytes(jpeg(np.ones((40, 60), np.uint8)))
    with pytest.raises(BadRecord, match=r"a\.png: it is saved as JPEG"):
        dataset[0]
    mask.write_bytes(b"nothing")
    with pytest.raises(BadRecord, match=r"a\.png cannot be read"):
        dataset[0]
