"""Photos from arrays, files and images of Pillow's; Pillow, tifffile and GDAL are the oracles."""

import io

import numpy as np
import pytest
import tifffile
from example_models import random_photo
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
    with pytest.raises(ValueError, match=r"not a picture, or this Pillow does not read AVIF"):
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


# TIFF


@pytest.fixture
def deep() -> np.ndarray:
    """A photo with 16 bits a channel, 20 x 31 pixels."""
    return np.random.default_rng(0).integers(0, 65536, (20, 31, 3)).astype(np.uint16)


def tiff(array: np.ndarray, **options) -> io.BytesIO:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file


LAYOUTS = {
    "rows": {},
    "strips": {"rowsperstrip": 3},
    "tiles": {"tile": (16, 16)},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "lzw": {"compression": "lzw", "predictor": 2},
    "deflate": {"compression": "zlib", "predictor": 2, "tile": (16, 16)},
    "zstd": {"compression": "zstd", "rowsperstrip": 5},
    "packbits": {"compression": "packbits"},
}


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_colours_with_16_bits_the_upper_8_are_taken_in_every_layout(deep, layout, planes):
    stored = np.moveaxis(deep, -1, 0) if planes == "separate" else deep
    for array, expected in ((stored, deep >> 8), ((stored >> 8).astype(np.uint8), deep >> 8)):
        file = tiff(array, photometric="rgb", planarconfig=planes, **LAYOUTS[layout])
        np.testing.assert_array_equal(read_image(file), expected)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("bands", [3, 4])
def test_16_bit_colours_of_gdal(tmp_path, deep, bands, interleave):
    """Which calls them grey with further bands."""
    rasterio = pytest.importorskip("rasterio")
    stored = np.dstack([deep, deep[..., :1]])[..., :bands]
    options = {"driver": "GTiff", "height": 20, "width": 31, "count": bands, "dtype": "uint16"}
    from affine import Affine

    with rasterio.open(
        tmp_path / "a.tif", "w", interleave=interleave, compress="deflate", transform=Affine.scale(2), **options
    ) as file:
        file.write(np.moveaxis(stored, -1, 0))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), deep >> 8)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float64"])
def test_grey_of_every_type_follows_the_rules_of_arrays(deep, dtype):
    grey = deep[..., 0] / 65535 if dtype == "float64" else deep[..., 0].astype(np.uint64)
    if dtype in ("uint32", "uint64"):
        grey *= np.uint64(2 ** (16 if dtype == "uint32" else 48))  # beyond what signed numbers hold
    grey = grey.astype(dtype)
    np.testing.assert_array_equal(read_image(tiff(grey, photometric="minisblack")), as_rgb(grey))


def test_what_has_no_colours_to_show_is_named_by_bands_and_type(deep):
    five = np.dstack([deep, deep])[..., :5]
    cases = [
        (tiff(five, photometric="minisblack", planarconfig="contig"), "5 bands of uint16 .*write the three bands"),
        (tiff(deep.astype(np.int16), photometric="rgb"), "3 bands of int16 .*unsigned"),
        (tiff(deep.astype(np.float32), photometric="rgb"), r"3 bands of float32 .*must lie in \[0, 1\]"),
        (tiff(deep, photometric="cielab"), "3 bands of uint16 .*cielab.* convert it to RGB"),
        (io.BytesIO(tiff(deep, photometric="rgb", compression="lzw").getvalue()[:2000]), "lzw.*cannot be decoded"),
    ]
    for file, message in cases:
        with pytest.raises(ValueError, match=message):
            read_image(file)


def test_other_kinds_of_colours_in_tiff(deep):
    alpha = np.dstack([deep, deep[..., :1]])
    expected = deep >> 8
    np.testing.assert_array_equal(read_image(tiff(alpha, photometric="rgb", extrasamples=["unassalpha"])), expected)
    wide = tiff(np.dstack([deep, deep])[..., :5], photometric="rgb", planarconfig="contig")
    np.testing.assert_array_equal(read_image(wide), expected)
    floats = (deep / 65535).astype(np.float32)
    np.testing.assert_array_equal(read_image(tiff(floats, photometric="rgb")), as_rgb(floats))
    white = read_image(tiff(deep[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(white, as_rgb(65535 - deep[..., 0]))
    ink = Image.frombytes("CMYK", (31, 20), (alpha >> 8).astype(np.uint8).tobytes())
    np.testing.assert_array_equal(read_image(tiff(alpha, photometric="separated")), np.asarray(ink.convert("RGB")))
    palette = np.random.default_rng(1).integers(0, 65536, (3, 65536)).astype(np.uint16)
    indexed = read_image(tiff(deep[..., 0], photometric="palette", colormap=palette))
    np.testing.assert_array_equal(indexed, (palette >> 8).T[deep[..., 0]])


def test_of_several_pages_the_first_is_read_and_that_is_said_once(deep, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_said", set())
    stack = np.stack([deep, deep[::-1]])
    for _ in range(2):
        np.testing.assert_array_equal(read_image(tiff(stack, photometric="rgb")), deep >> 8)
    assert [record.getMessage() for record in caplog.records] == [
        "the picture has 2 pages, of which the first is read (said once)"
    ]


def test_smaller_copies_are_no_pages(deep, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_said", set())
    for first in (False, True):
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            if first:
                writer.write(deep[::4, ::4], photometric="rgb", subfiletype=1)
            writer.write(deep, photometric="rgb")
            writer.write(deep[::2, ::2], photometric="rgb", subfiletype=1)
        np.testing.assert_array_equal(read_image(file), deep >> 8)
    assert not caplog.records


def test_a_cameras_raw_file_is_not_read_for_its_preview(deep):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(deep[::4, ::4] >> 8, photometric="rgb", subfiletype=1, subifds=1)
        writer.write(deep[..., 0], photometric="minisblack", subfiletype=0)
    with pytest.raises(ValueError, match="previews only"):
        read_image(file)


# Sizes


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "jpeg2000", "tiff", "deep tiff"])
def test_a_photos_size_is_that_of_the_photo_however_it_is_turned(tmp_path, deep, kind):
    path = tmp_path / "photo"
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_wide_tiff_files_are_turned_as_pillow_turns_narrow_ones(deep, orientation):
    tag = {"photometric": "rgb", "extratags": [(274, "H", 1, orientation, True)]}
    narrow = read_image(tiff((deep >> 8).astype(np.uint8), **tag))
    np.testing.assert_array_equal(read_image(tiff(deep, **tag)), narrow)
    assert (narrow.shape[0] == 31) == (orientation >= 5)


def test_an_orientation_in_xmp_counts(tmp_path, deep):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    narrow = tiff((deep >> 8).astype(np.uint8), photometric="rgb", extratags=[(700, "B", len(xmp), xmp, True)])
    (tmp_path / "a.tif").write_bytes(narrow.getvalue())
    assert photo_size(tmp_path / "a.tif") == read_image(tmp_path / "a.tif").shape[:2] == (31, 20)


# Images of Pillow's


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


def test_a_tiff_file_that_pillow_misreads_is_read_again(tmp_path, deep):
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
