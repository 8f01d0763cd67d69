"""Photos from images of Pillow's: what Pillow shows, or what their file is read as."""

import io

import numpy as np
import pytest
from example_models import random_photo
from example_pictures import deep_photo, tiff
from PIL import Image

from samjax import read_image
from samjax.pictures import as_rgb


def _in_mode(mode: str) -> Image.Image:
    image = Image.fromarray(random_photo(8, 12))
    through = {"La": "LA", "RGBa": "RGBA", "PA": "P", "I;16": "I", "I;16B": "I"}.get(mode)
    if mode == "LAB":
        return Image.frombytes("LAB", (12, 8), image.tobytes())
    return (image.convert(through) if through else image).convert(mode)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa"]
)
def test_an_image_of_any_narrow_mode_is_what_pillow_shows(mode):
    image = _in_mode(mode)
    before = np.asarray(image).copy()
    shown = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGB")
    np.testing.assert_array_equal(as_rgb(image), np.asarray(shown))
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_an_image_of_wide_numbers_follows_the_rules_of_arrays(mode):
    image = _in_mode(mode)
    np.testing.assert_array_equal(as_rgb(image), as_rgb(np.asarray(image)))
    assert np.ptp(as_rgb(image)) == 255


FILES = {
    ("png", "P"): {},
    ("png", "LA"): {},
    ("png", "I;16"): {},
    ("jpeg", "CMYK"): {},
    ("gif", "P"): {},
    ("tiff", "YCbCr"): {"compression": "jpeg"},
    ("tiff", "LAB"): {},
    ("tiff", "I;16"): {"compression": "tiff_lzw"},
    ("tiff", "I"): {},
}


@pytest.mark.parametrize(("form", "mode"), FILES)
def test_an_opened_image_is_read_as_its_file(form, mode):
    file = io.BytesIO()
    _in_mode(mode).save(file, form, **FILES[form, mode])
    expected = read_image(file)
    np.testing.assert_array_equal(as_rgb(Image.open(file)), expected)
    loaded = Image.open(file)
    loaded.load()
    np.testing.assert_array_equal(as_rgb(loaded), expected)


def test_an_opened_image_is_turned_upright():
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_photo(8, 12)).save(file, "png", exif=exif)
    np.testing.assert_array_equal(as_rgb(Image.open(file)), np.rot90(random_photo(8, 12), -1))


def test_a_tiff_file_that_pillow_misreads_is_read_again(tmp_path):
    deep = deep_photo()
    planes = tiff(np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate")
    (tmp_path / "planes.tif").write_bytes(planes.getvalue())
    for source in (planes, tmp_path / "planes.tif"):
        image = Image.open(source)
        np.testing.assert_array_equal(as_rgb(image), deep >> 8)
        assert (np.asarray(image) != deep >> 8).any()  # as Pillow has it
    image = Image.open(tmp_path / "planes.tif")
    image.load()  # closes the file
    np.testing.assert_array_equal(as_rgb(image), deep >> 8)
    image.thumbnail((10, 10))
    with pytest.raises(ValueError, match="10 x 6 pixels, its TIFF file 31 x 20"):
        as_rgb(image)
    lost = Image.open(io.BytesIO(planes.getvalue()))
    lost.load()
    with pytest.raises(ValueError, match=r"samjax\.read_image"):
        as_rgb(lost)
    wide = (deep[..., 0].astype(np.uint32) << 16).astype(np.uint32)
    np.testing.assert_array_equal(as_rgb(Image.open(tiff(wide))), as_rgb(wide))


def test_an_image_of_pillows_has_its_own_order_of_colours():
    with pytest.raises(ValueError, match="image_format is for arrays"):
        as_rgb(_in_mode("RGB"), "BGR")


def test_an_empty_image_of_pillows_is_refused():
    with pytest.raises(ValueError, match="empty: it has 0 x 5 pixels"):
        as_rgb(Image.new("RGB", (0, 5)))
