"""Photos from arrays and files; Pillow is the oracle."""

import io

import numpy as np
import pytest
from example_models import random_photo
from example_pictures import deep_photo, tiff
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from samjax import pictures, read_image
from samjax.pictures import as_rgb, photo_size

# What counts as an image


def test_grey_is_repeated_and_alpha_dropped():
    photo = random_photo(4, 5)
    grey = photo[:, :, 0]
    for image in (grey, grey[:, :, None], np.stack([grey, 255 - grey], -1)):
        np.testing.assert_array_equal(as_rgb(image), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(as_rgb(np.dstack([photo, grey])), photo)


def test_blue_may_come_first():
    photo = random_photo(4, 5)
    np.testing.assert_array_equal(as_rgb(photo[:, :, ::-1], "BGR"), photo)


def test_a_colour_order_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="RGB or BGR, got 'RBG'"):
        as_rgb(random_photo(4, 5), "RBG")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int16, np.uint32, np.int64])
def test_wide_integers_are_stretched_to_8_bits(dtype):
    values = np.array([[1000, 2000, 3000]], dtype)
    assert as_rgb(values)[0, :, 0].tolist() == [0, 128, 255]


def test_a_flat_wide_image_is_black():
    assert (as_rgb(np.full((2, 2), 700, np.uint16)) == 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_run_from_zero_to_one(dtype):
    assert as_rgb(np.array([[0, 0.5, 1]], dtype))[0, :, 0].tolist() == [0, 128, 255]


def test_booleans_are_black_and_white():
    assert as_rgb(np.array([[False, True]]))[0, :, 0].tolist() == [0, 255]


@given(st.integers(0, 255))
def test_8_bit_values_survive_a_trip_through_floats(value):
    image = np.full((1, 1, 3), value, np.uint8)
    np.testing.assert_array_equal(as_rgb(image.astype(np.float32) / 255), image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), r"empty: its shape is \(0, 5, 3\)"),
        (np.zeros((4, 5, 5), np.uint8), r"got shape \(4, 5, 5\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"got shape \(2, 4, 5, 3\)"),
        (np.zeros(5, np.uint8), r"got shape \(5,\)"),
        (np.full((2, 2), np.nan), "NaN or infinity"),
        (np.full((2, 2), np.inf), "NaN or infinity"),
        (np.full((2, 2), 200.0), r"must lie in \[0, 1\], got 200 to 200"),
        (np.full((2, 2), -0.5), r"must lie in \[0, 1\]"),
        (np.full((2, 2), "a"), "integers, floats or booleans"),
        (np.full((2, 2), 1j), "integers, floats or booleans"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(image, message):
    with pytest.raises(ValueError, match=message):
        as_rgb(image)


# Files


def test_a_file_is_turned_upright(tmp_path):
    photo = random_photo(8, 12)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(photo).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(photo, -1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_usual_mode_becomes_rgb(tmp_path, mode):
    Image.fromarray(random_photo(8, 12)).convert(mode).save(tmp_path / "photo.tiff")
    image = read_image(tmp_path / "photo.tiff")
    assert image.shape == (8, 12, 3)
    assert image.dtype == np.uint8


def test_a_16_bit_file_is_stretched(tmp_path):
    values = np.linspace(500, 40_000, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "deep.png")), as_rgb(values))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file at .*nowhere\.jpg"):
        read_image(tmp_path / "nowhere.jpg")


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image file"):
        read_image(tmp_path)


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_photo(64, 64)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", _png()[:1000], _png()[:60] + b"?" * 200], ids=["empty", "text", "cut", "garbled"]
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image"):
        read_image(tmp_path / "broken.png")


def test_a_pillow_without_avif_is_named(monkeypatch):
    def unidentified(*args):
        raise UnidentifiedImageError("cannot identify")

    monkeypatch.setattr(Image, "open", unidentified)
    with pytest.raises(ValueError, match=r"not an image, or this Pillow does not read AVIF"):
        read_image(io.BytesIO(b"\0\0\0\x20ftypavif" + bytes(20)))


def test_the_endings_are_documented(root):
    text = (root / "docs" / "inputs.md").read_text(encoding="utf-8")
    assert f"{', '.join(pictures.ENDINGS[:-1])} or {pictures.ENDINGS[-1]}" in text.replace("\n", " ")
    assert {".avif", ".gif", ".pgm", ".tga"} < set(pictures.ENDINGS)


@pytest.mark.parametrize("ending", pictures.ENDINGS)
def test_files_of_every_ending_are_read(tmp_path, ending):
    Image.fromarray(random_photo(16, 24)).convert("1" if ending == ".pbm" else "RGB").save(tmp_path / f"a{ending}")
    assert read_image(tmp_path / f"a{ending}").shape == (16, 24, 3)


def test_no_message_has_an_objects_address(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(20))
    with pytest.raises(ValueError, match=r"a\.tif: it is a TIFF") as caught:
        read_image(tmp_path / "a.tif")
    assert " at 0x" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        read_image(io.BytesIO(b"nothing"))
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "jpeg2000", "tiff", "deep tiff"])
def test_a_photos_size_is_that_of_the_photo_however_it_is_turned(tmp_path, kind):
    path, deep = tmp_path / "photo", deep_photo()
    for orientation in (1, 3, 5, 6, 8):
        if kind == "deep tiff":
            tag = [(274, "H", 1, orientation, True)]
            path.write_bytes(tiff(deep, photometric="rgb", extratags=tag).getvalue())
        else:
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.fromarray((deep >> 8).astype(np.uint8)).save(path, kind, exif=exif)
        image = read_image(path)
        assert photo_size(path) == image.shape[:2]
        if kind != "jpeg2000":  # which has no EXIF
            assert image.shape[:2] == ((31, 20) if orientation >= 5 else (20, 31))
