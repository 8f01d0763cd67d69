"""Photos from TIFF files; tifffile and GDAL write them, Pillow is the oracle where it reads them."""

import io

import numpy as np
import pytest
import tifffile
from example_pictures import deep_photo, tiff
from PIL import Image

from samjax import pictures, read_image
from samjax.pictures import as_rgb, photo_size


@pytest.fixture
def deep() -> np.ndarray:
    return deep_photo()


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
