"""Label maps and pages of masks from files; tifffile, Pillow and GDAL write them."""

import io

import numpy as np
import pytest
import tifffile
from example_pictures import saved, tiff
from PIL import Image

from samjax.foreground import binary_mask
from samjax.maps import read_colours, read_grey, read_labels, read_mask, read_mask_pages


@pytest.fixture
def labels() -> np.ndarray:
    """0, 1 and 2 in areas of 20 x 34 pixels."""
    labels = np.zeros((20, 34), np.uint8)
    labels[2:9, 3:30], labels[12:18, 5:20] = 1, 2
    return labels


LARGEST = {"uint32": 2**32 - 1, "int64": 2**62, "uint64": 2**64 - 1, "float64": 2**53}
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float16", "float32", "float64"]
LAYOUTS = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "lzw": {"compression": "lzw"},
    "deflated tiles": {"compression": "zlib", "tile": (16, 16)},
    "zstd strips in a big file": {"compression": "zstd", "rowsperstrip": 3, "bigtiff": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_every_type_and_layout_are_read(labels, dtype, layout):
    stored = labels.astype(dtype)
    stored[labels == 2] = LARGEST.get(dtype, 100)
    found = read_labels(tiff(stored, **LAYOUTS[layout]))
    assert np.issubdtype(found.dtype, np.integer)
    assert found.dtype.isnative
    assert np.unique(found).tolist() == [0, 1, LARGEST.get(dtype, 100)]
    np.testing.assert_array_equal(found, stored)


def test_packed_numbers_of_gdal_and_pillow_are_read(labels, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from affine import Affine

    options = {"height": 20, "width": 34, "count": 1, "dtype": "uint8", "transform": Affine.scale(2)}
    with rasterio.open(tmp_path / "a.tif", "w", nbits=4, **options) as file:
        file.write(labels, 1)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), labels)
    for compression in ("group3", "group4", "packbits"):
        file = saved(labels > 1, "tiff", compression=compression)
        np.testing.assert_array_equal(read_labels(file), labels > 1)
        np.testing.assert_array_equal(read_mask(file), labels > 1)


def _png_of(labels: np.ndarray, bits: int) -> io.BytesIO:
    """Grey of a few bits, which Pillow does not write but as a palette."""
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0] * (2**bits))
    data = saved(picture, bits=bits).getvalue()
    start, end = data.index(b"PLTE") - 4, data.index(b"IDAT") - 4
    header = data[:25] + b"\0" + data[26:29]
    import zlib

    return io.BytesIO(header + zlib.crc32(header[12:29]).to_bytes(4, "big") + data[33:start] + data[end:])


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_png_files_of_few_bits_have_their_own_numbers(labels, bits):
    """Pillow multiplies them, so that the largest is white, which would be void."""
    file = _png_of(labels, bits)
    assert Image.open(file).mode == "L"
    assert np.asarray(Image.open(file)).max() == 2 * 255 // (2**bits - 1)
    np.testing.assert_array_equal(read_labels(file), labels)


def test_other_lossless_files_are_read(labels):
    for form, options in [
        ("bmp", {}),
        ("gif", {}),
        ("webp", {"lossless": True}),
        ("jpeg2000", {"irreversible": False}),
        ("tiff", {"compression": "tiff_lzw"}),
    ]:
        np.testing.assert_array_equal(read_labels(saved(labels, form, **options)), labels)
    white_is_0 = read_labels(tiff(labels, photometric="miniswhite"))
    np.testing.assert_array_equal(white_is_0, labels)  # numbers, not what they look like


LOSSY = {
    "JPEG": lambda labels: saved(labels, "jpeg", quality=100),
    "WebP": lambda labels: saved(labels, "webp", quality=100),
    "WebP of several": lambda labels: saved(
        Image.fromarray(labels * 100), "webp", save_all=True, append_images=[Image.fromarray(labels[::-1] * 100)]
    ),
    "AVIF": lambda labels: saved(labels, "avif", quality=100),
    "JPEG 2000": lambda labels: saved(labels, "jpeg2000", irreversible=True),
    "JPEG 2000 without a box": lambda labels: saved(labels, "jpeg2000", irreversible=True, no_jp2=True),
    "TIFF with jpeg": lambda labels: saved(labels, "tiff", compression="jpeg"),
    "TIFF with jpeg2000": lambda labels: tiff(labels, compression="jpeg2000", compressionargs={"level": 30}),
    "TIFF with webp": lambda labels: tiff(
        np.dstack([labels] * 3), photometric="rgb", compression="webp", compressionargs={"lossless": False}
    ),
    "TIFF with lerc": lambda labels: tiff(labels, compression="lerc", compressionargs={"level": 1}),
    "TIFF with lerc of fractions": lambda labels: tiff(
        labels.astype(np.float32), compression="lerc", compressionargs={"level": 0.25}
    ),
    "TIFF with lerc of deflate": lambda labels: tiff(
        labels, compression="lerc", compressionargs={"level": 2, "compression": "deflate"}
    ),
    "TIFF with lerc of zstd": lambda labels: tiff(
        labels, tile=(16, 16), compression="lerc", compressionargs={"level": 2, "compression": "zstd"}
    ),
    "TIFF with jpegxl": lambda labels: tiff(labels, compression="jpegxl"),  # whose bytes do not say it simply
}
LOSSLESS = {
    "jpeg": {"compression": "jpeg", "compressionargs": {"lossless": True}},
    "jpeg2000": {"compression": "jpeg2000", "tile": (16, 16)},
    "lerc": {"compression": "lerc", "rowsperstrip": 5},
    "lerc of zstd": {"compression": "lerc", "compressionargs": {"compression": "zstd"}},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_compressions_of_tiff_that_keep_numbers_are_read(labels, kind, dtype):
    if not kind.startswith("lerc") and dtype != np.uint8:
        pytest.skip("which such files do not hold")
    np.testing.assert_array_equal(read_labels(tiff(labels.astype(dtype), **LOSSLESS[kind])), labels)
    if dtype == np.uint8:
        np.testing.assert_array_equal(read_colours(tiff(labels, **LOSSLESS[kind])), np.dstack([labels] * 3))


@pytest.mark.parametrize("read", [read_labels, read_colours])
@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_formats_are_refused_by_name(labels, kind, read):
    name = kind.partition(" of ")[0].partition(" without ")[0]
    with pytest.raises(ValueError, match=rf"a\.x: it is saved as {name}.*lossy.*again as PNG or TIFF"):
        read(LOSSY[kind](labels), name="a.x")


def _frames(labels: np.ndarray, form: str, **options) -> io.BytesIO:
    first, *others = (Image.fromarray(labels == number) for number in (1, 2))
    return saved(first.convert("L"), form, save_all=True, append_images=[one.convert("L") for one in others], **options)


def _in_one_directory(file: io.BytesIO) -> io.BytesIO:
    """As ImageJ writes stacks of more than 4 GB: the other pages are where they would be, without directories."""
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as stack:
        start = stack.pages.first.offset
    entries = int.from_bytes(data[start : start + 2], "little")
    following = start + 2 + 12 * entries
    data[following : following + 4] = bytes(4)
    return io.BytesIO(bytes(data))


SEVERAL = {
    "tiff": lambda labels: tiff(np.stack([labels == 1, labels == 2]).astype(np.uint8), photometric="minisblack"),
    "ImageJ": lambda labels: _in_one_directory(
        tiff(np.stack([labels == 1, labels == 2]).astype(np.uint8), imagej=True, byteorder="<")
    ),
    "tifffile": lambda labels: tiff(
        np.stack([labels == 1, labels == 2]).astype(np.uint8), photometric="minisblack", truncate=True
    ),
    "gif": lambda labels: _frames(labels, "gif"),
    "png": lambda labels: _frames(labels, "png"),
    "webp": lambda labels: _frames(labels, "webp", lossless=True),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_map_has_one_page_and_each_page_of_masks_is_an_object(labels, kind):
    file = SEVERAL[kind](labels)
    for read, what in [(read_labels, "a label map"), (read_colours, "a label map"), (read_mask, "a mask")]:
        with pytest.raises(ValueError, match=f"it has 2 pages, {what} has one: write the page"):
            read(file)
    with pytest.raises(ValueError, match="it has 2 pages, a grey map has one"):
        read_grey(file)
    masks = [binary_mask(page, "page") for page in read_mask_pages(file)]
    np.testing.assert_array_equal(masks, [labels == 1, labels == 2])


def test_smaller_copies_of_a_map_are_no_pages(labels):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(labels)
        writer.write(labels[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read_labels(file), labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda labels: tiff(np.stack([labels] * 5), planarconfig="separate", photometric="rgb"), "5 bands of uint8"),
        (lambda labels: tiff(np.stack([labels] * 3), planarconfig="separate", photometric="rgb"), "3 bands .*planar"),
        (lambda labels: tiff(labels.astype(np.complex64)), "it holds complex64"),
        (lambda labels: tiff(labels / 3), "fractions"),
        (lambda labels: tiff(labels * 1e19), "too large for whole numbers of 64 bits"),
        (lambda labels: saved(np.dstack([labels] * 2)), "picture in LA"),
        (lambda labels: io.BytesIO(tiff(labels, compression="lzw").getvalue()[:-40]), r"a\.x: it is a TIFF"),
        (lambda labels: io.BytesIO(b"nothing"), r"cannot be read as an image: the file is damaged or not an image"),
    ],
)  # fmt: skip
def test_what_is_no_label_map_is_named_by_its_kind(labels, make, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_labels(make(labels), name="a.x")
    assert " at 0x" not in str(caught.value)


def test_grey_maps_have_8_bits(labels):
    np.testing.assert_array_equal(read_grey(tiff(labels, compression="lzw")), labels)
    with pytest.raises(ValueError, match="numbers of uint16; expected grey of 8 bits"):
        read_grey(tiff(labels.astype(np.uint16)))
