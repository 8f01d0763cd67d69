"""Binary masks from pictures: what was saved lossy or smooth is what was drawn, and what is several objects is refused.

What was drawn is the oracle, and Pillow's codecs and filters do to it what people's tools do.
"""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from samjax import assets, pictures
from samjax.foreground import EmptyMask
from samjax.maps import read_mask

INSTEAD = "several objects; give it as labelmap="


@pytest.fixture
def ellipse() -> np.ndarray:
    y, x = np.mgrid[:120, :160]
    return ((y - 60) / 40) ** 2 + ((x - 80) / 60) ** 2 < 1


@pytest.fixture
def labels() -> np.ndarray:
    """Three objects of which two touch."""
    labels = np.zeros((120, 160), np.uint8)
    labels[10:50, 10:60], labels[10:50, 60:110], labels[60:110, 20:90] = 1, 2, 3
    return labels


def saved(image: np.ndarray | Image.Image, form: str = "png", **options) -> io.BytesIO:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file


def tiff(array: np.ndarray, **options) -> io.BytesIO:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file


def white(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * np.uint8(255)


def relabelled(labels: np.ndarray, colours) -> np.ndarray:
    return np.array([np.zeros_like(colours[0]), *colours]).astype(np.uint8)[labels]


# One object


LOSSY = {
    "jpeg 95": ("jpeg", {"quality": 95}),
    "jpeg 30": ("jpeg", {"quality": 30}),
    "webp": ("webp", {"quality": 60}),
    "avif": ("avif", {"quality": 50}),
    "jpeg 2000": ("jpeg2000", {"irreversible": True, "quality_mode": "dB", "quality_layers": [35]}),
    "tiff": ("tiff", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("channels", ["grey", "colours", "png since"])
def test_a_mask_that_was_saved_lossy_is_what_was_drawn(ellipse, kind, channels):
    form, options = LOSSY[kind]
    drawn = np.dstack([white(ellipse)] * 3) if channels == "colours" else white(ellipse)
    file = saved(drawn, form, **options)
    if channels == "png since":
        file = saved(Image.open(file).convert("L"))
    wrong = read_mask(file) != ellipse
    assert wrong.mean() < 0.003
    assert not wrong[[0, -1]].any()


def test_a_mask_in_one_colour_is_cut_by_that_colour(ellipse):
    drawn = ellipse[..., None] * np.array([220, 20, 60], np.uint8)
    np.testing.assert_array_equal(read_mask(saved(drawn)), ellipse)
    assert (read_mask(saved(drawn, "jpeg", quality=90)) != ellipse).mean() < 0.005


@pytest.mark.parametrize("grey", [60, 128, 220])
@pytest.mark.parametrize("quality", [20, 90])
def test_the_object_may_have_any_grey(ellipse, grey, quality):
    file = saved(ellipse.astype(np.uint8) * np.uint8(grey), "jpeg", quality=quality)
    assert (read_mask(file) != ellipse).mean() < 0.01


@pytest.mark.parametrize("numbers", ["8 bits", "16 bits", "fractions"])
def test_smooth_edges_are_cut_at_half_of_the_maximum(ellipse, numbers):
    large = Image.fromarray(white(ellipse))
    small = np.asarray(large.resize((80, 60), Image.Resampling.BOX))
    stored = {
        "8 bits": lambda: saved(small // 2),
        "16 bits": lambda: saved(small.astype(np.uint16) * 200),
        "fractions": lambda: tiff(small.astype(np.float32) / 510),
    }[numbers]()
    np.testing.assert_array_equal(read_mask(stored), small >= 128)


@pytest.mark.parametrize("two", ["bool", "1", "255", "65535", "-1", "0.5"])
def test_two_values_are_0_and_the_other(ellipse, two):
    stored = {
        "bool": lambda: saved(ellipse),
        "1": lambda: saved(ellipse.astype(np.uint8)),
        "255": lambda: saved(white(ellipse)),
        "65535": lambda: saved(ellipse.astype(np.uint16) * np.uint16(65535)),
        "-1": lambda: tiff(-ellipse.astype(np.int8)),
        "0.5": lambda: tiff(ellipse / 2, compression="lzw"),
    }[two]()
    np.testing.assert_array_equal(read_mask(stored), ellipse)


def test_specks_that_a_lossy_format_left_are_no_objects(ellipse):
    drawn = white(ellipse)
    drawn[:60:3] = np.clip(drawn[:60:3], 1, 254)
    np.testing.assert_array_equal(read_mask(saved(drawn)), ellipse)


SHAPES = st.builds(
    lambda x, y, width, height, turn, is_round: _drawn(x, y, width, height, turn, is_round),
    x=st.integers(95, 145),
    y=st.integers(95, 115),
    width=st.integers(40, 80),
    height=st.integers(40, 80),
    turn=st.integers(0, 89),
    is_round=st.booleans(),
)


def _drawn(x, y, width, height, turn, is_round) -> Image.Image:
    """An ellipse or a rectangle of half this width and height, turned, in a picture of 240 x 216 pixels."""
    picture = Image.new("L", (240, 216))
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if is_round else draw.rectangle)([x - width, y - height, x + width, y + height], fill=255)
    return picture.rotate(turn, Image.Resampling.NEAREST)


def _overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return np.count_nonzero(found & truth) / np.count_nonzero(found | truth)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from(["jpeg", "webp"]), st.integers(30, 95), st.booleans())
def test_any_mask_survives_a_lossy_format(drawn, form, quality, in_colour):
    picture = drawn.convert("RGB") if in_colour else drawn
    found = read_mask(saved(picture, form, quality=quality))
    assert _overlap(found, np.asarray(drawn) > 0) > 0.98


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(2, 4), st.sampled_from(["LANCZOS", "BICUBIC", "BILINEAR", "BOX"]), st.booleans())
def test_any_mask_survives_another_size(drawn, factor, resampling, is_larger):
    """But for half a pixel along its edge, which is two of what was drawn where four have become one."""
    by = Image.Resampling[resampling]
    size = tuple(side * factor if is_larger else side // factor for side in drawn.size)
    found = read_mask(saved(drawn.resize(size, by)))
    back = Image.fromarray(found).resize(drawn.size, Image.Resampling.NEAREST)
    assert _overlap(np.asarray(back), np.asarray(drawn) > 0) > (0.95 if is_larger else 0.93)


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.sampled_from([0.5, 1, 2, 3, 5]))
def test_any_mask_survives_blurring(drawn, radius):
    found = read_mask(saved(drawn.filter(ImageFilter.GaussianBlur(radius))))
    assert _overlap(found, np.asarray(drawn) > 0) > 0.95


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("resampling", ["BILINEAR", "BICUBIC"])
@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_thin_lines_survive_being_enlarged(factor, resampling, form):
    """Most of whose pixels are then edge. Half a pixel on each side of lines of two is a fifth of them."""
    random = np.random.default_rng(0)
    drawn = Image.new("L", (300, 200))
    for _ in range(15):
        ImageDraw.Draw(drawn).line([tuple(point) for point in random.integers(0, (300, 200), (4, 2)).tolist()], 255, 2)
    found = read_mask(saved(drawn.resize((300 * factor, 200 * factor), Image.Resampling[resampling]), form))
    assert _overlap(found, np.kron(np.asarray(drawn) > 0, np.ones((factor, factor), bool))) > 0.8


def test_a_smooth_edge_along_the_border_is_no_object(ellipse):
    drawn = white(ellipse)
    drawn[-2, 5:12], drawn[-1, 5:12] = 200, 100
    np.testing.assert_array_equal(read_mask(saved(drawn)), drawn > 127)


def test_what_is_white_is_foreground_where_0_is_white(ellipse):
    for mask in (~ellipse, white(~ellipse), white(~ellipse).astype(np.uint16) * np.uint16(257)):
        np.testing.assert_array_equal(read_mask(tiff(mask, photometric="miniswhite")), ellipse)


def test_smooth_edges_of_4_bits_are_no_labels(ellipse, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from affine import Affine

    smooth = np.asarray(Image.fromarray(white(ellipse)).resize((80, 60), Image.Resampling.BOX))
    options = {"height": 60, "width": 80, "count": 1, "dtype": "uint8", "transform": Affine.scale(2)}
    with rasterio.open(tmp_path / "a.tif", "w", nbits=4, **options) as file:
        file.write(smooth >> 4, 1)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), smooth >= 128)


def test_palettes_count_by_index_or_by_their_greys(ellipse):
    for background, foreground in (([7, 7, 90], [200, 0, 0]), ([0, 0, 0], [255, 255, 255])):
        picture = Image.fromarray(ellipse.astype(np.uint8))
        picture.putpalette([*background, *foreground])
        np.testing.assert_array_equal(read_mask(saved(picture)), ellipse)
    picture = Image.fromarray((~ellipse).astype(np.uint8))
    picture.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(saved(picture)), ellipse)


def test_smooth_edges_of_a_palette_are_those_of_its_colours(ellipse):
    """Whatever the order of the palette."""
    smooth = np.asarray(Image.fromarray(white(ellipse)).resize((80, 60), Image.Resampling.LANCZOS))
    order = np.random.default_rng(0).permutation(256)
    picture = Image.fromarray(np.argsort(order).astype(np.uint8)[smooth])
    for colour in ([1, 1, 1], [1, 0.2, 0.1]):
        picture.putpalette((order[:, None] * np.array(colour)).astype(np.uint8).ravel().tolist())
        np.testing.assert_array_equal(read_mask(saved(picture)), smooth >= 128)


def test_cutting_is_said_once(ellipse, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_said", set())
    read_mask(saved(white(ellipse)), name="white.png")
    assert not caplog.records
    for name in ("first.jpg", "second.jpg"):
        read_mask(saved(white(ellipse), "jpeg"), name=name)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "first.jpg has more than two values" in record.getMessage()
    assert "half of their maximum" in record.getMessage()


# Opacity


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (120, 160, 3)).astype(np.uint8)


@pytest.mark.parametrize("form", ["png", "tiff"])
@pytest.mark.parametrize("kind", ["everywhere", "cleared", "with black", "white", "black", "black on white"])
def test_the_opacity_of_a_cut_out_is_the_mask(ellipse, colours, kind, form):
    shown = {
        "everywhere": colours,
        "cleared": colours * ellipse[..., None],  # what cannot be seen is black
        "with black": colours * (colours[..., :1] > 20),
        "white": np.full_like(colours, 255),
        "black": np.zeros_like(colours),
        "black on white": np.dstack([white(~ellipse)] * 3),
    }[kind]
    np.testing.assert_array_equal(read_mask(saved(np.dstack([shown, white(ellipse)]), form)), ellipse)


def test_grey_and_palettes_have_opacity_too(ellipse, colours):
    np.testing.assert_array_equal(read_mask(saved(np.dstack([colours[..., 0], white(ellipse)]))), ellipse)
    few = Image.fromarray(np.dstack([colours, white(ellipse)])).quantize(200)
    assert few.mode == "P"
    np.testing.assert_array_equal(read_mask(saved(few)), ellipse)


@pytest.mark.parametrize("form", ["png", "tiff", "gif", "webp"])
@pytest.mark.parametrize("number", [2, 8, 32])
def test_a_cut_out_in_flat_colours_is_its_opacity(ellipse, number, form):
    """As icons are, and photos of few colours."""
    flat = np.array([(40, 250, 90), *np.random.default_rng(0).integers(30, 255, (31, 3))], np.uint8)
    shown = flat[np.arange(ellipse.size).reshape(ellipse.shape) // (40 * 160) * 11 % number]
    picture = Image.fromarray(np.dstack([shown, white(ellipse)]))
    kept = {"lossless": True} if form == "webp" else {}
    np.testing.assert_array_equal(read_mask(saved(picture, form, **kept)), ellipse)
    np.testing.assert_array_equal(read_mask(saved(picture.convert("LA"))), ellipse)
    np.testing.assert_array_equal(read_mask(saved(picture.quantize(number + 1))), ellipse)


def test_that_opacity_counts_and_flat_colours_do_not_is_said_once(labels, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_said", set())
    coloured = relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    for _ in range(2):
        found = read_mask(saved(np.dstack([coloured, white(labels > 0)])), name="a.png")
        np.testing.assert_array_equal(found, labels > 0)
    (record,) = caplog.records
    assert "a.png has areas of 3 colours and is transparent elsewhere: opacity is the mask" in record.getMessage()


def test_opacity_of_several_levels_is_cut_at_half(ellipse, colours):
    """Shadows are no objects, and quantising leaves a trace of opacity in the background."""
    alpha = np.where(ellipse, 255, 2).astype(np.uint8)
    alpha[:20], alpha[-20:] = 100, 180
    np.testing.assert_array_equal(read_mask(saved(np.dstack([colours, alpha]))), alpha > 127)


def test_opacity_that_is_nowhere_0_is_no_mask(ellipse, colours):
    dim = np.where(ellipse, 230, 30).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(saved(np.dstack([white(ellipse)] * 3 + [dim]))), ellipse)
    with pytest.raises(ValueError, match=r"photo\?.*where the opacity is the mask, keep only that: image\.getchannel"):
        read_mask(saved(np.dstack([colours, dim])))


def test_smooth_opacity_is_cut_at_half(ellipse, colours):
    smooth = np.asarray(Image.fromarray(white(ellipse)).resize((80, 60), Image.Resampling.BOX))
    for shown in (colours[:60, :80], np.full((60, 80, 3), 255, np.uint8), np.zeros((60, 80, 3), np.uint8)):
        np.testing.assert_array_equal(read_mask(saved(np.dstack([shown, smooth]))), smooth >= 128)


def test_a_mask_that_is_drawn_on_a_part_of_the_picture_is_what_can_be_seen(ellipse):
    on_paper = np.zeros_like(ellipse)
    on_paper[10:110, 10:150] = True
    drawn = white(ellipse)
    drawn[:5] = 255  # where nothing can be seen
    picture = np.dstack([drawn, drawn, drawn, white(on_paper)])
    np.testing.assert_array_equal(read_mask(saved(picture)), ellipse & on_paper)


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_colours_are_the_mask_where_opacity_is_the_same_everywhere(ellipse, opacity):
    picture = np.dstack([white(ellipse)] * 3 + [np.full(ellipse.shape, opacity, np.uint8)])
    np.testing.assert_array_equal(read_mask(saved(picture)), ellipse)


def test_a_black_opaque_picture_is_empty(ellipse):
    with pytest.raises(EmptyMask, match="is empty: all of its pixels are 0"):
        read_mask(saved(np.dstack([np.zeros((*ellipse.shape, 3), np.uint8), white(ellipse | True)])))


# Several objects

SEVERAL = {
    "small numbers": lambda labels: saved(labels),
    "small fractions": lambda labels: tiff(labels.astype(np.float32)),
    "no background": lambda labels: saved((labels > 0).astype(np.uint8) + np.uint8(1)),
    "16 bits": lambda labels: saved(labels.astype(np.uint16) * np.uint16(20_000)),
    "void": lambda labels: saved(np.where(labels > 1, 255, labels).astype(np.uint8)),
    "three of grey": lambda labels: saved(relabelled(labels, [85, 170, 255])),
    "two of light grey": lambda labels: saved(relabelled(labels, [240, 255, 240])),
    "trimap": lambda labels: saved(relabelled(labels, [128, 255, 255])),
    "jpeg": lambda labels: saved(relabelled(labels, [85, 170, 255]), "jpeg", quality=60),
    "webp": lambda labels: saved(relabelled(labels, [85, 170, 255]), "webp", quality=60),
    "png since": lambda labels: saved(Image.open(saved(relabelled(labels, [85, 170, 255]), "jpeg", quality=60))),
    "colours": lambda labels: saved(relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)])),
    "colours in jpeg": lambda labels: saved(relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)]), "jpeg"),
    "a small one in jpeg": lambda labels: saved(relabelled(labels, [(0, 255, 0), (255, 0, 0), (255, 0, 0)]), "jpeg"),
    "colours on black with opacity": lambda labels: saved(
        np.dstack([relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)]), white(np.indices(labels.shape)[0] > 5)])
    ),
    "red on white": lambda labels: saved(np.where(labels[..., None] > 0, (255, 0, 0), 255).astype(np.uint8)),
    "a palette": lambda labels: saved(_with_palette(labels)),
    "a speck": lambda labels: saved(_with_speck(white(labels == 3), 3, 128)),
    "a speck without an inside": lambda labels: saved(_with_speck(white(labels == 3), 2, 128)),
    "a speck beside smooth edges": lambda labels: saved(_with_speck(_turned(white(labels == 3)) & 224, 3, 128)),
    "a white speck in jpeg": lambda labels: saved(_with_speck(white(labels == 3) // 2, 4, 255), "jpeg", quality=90),
}


def _with_speck(mask: np.ndarray, height: int, grey: int) -> np.ndarray:
    speck = np.array(mask)
    speck[4 : 4 + height, 4:8] = grey
    return speck


def _turned(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).rotate(7, Image.Resampling.BILINEAR))


def _with_palette(labels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return picture


@pytest.mark.parametrize("kind", SEVERAL)
def test_what_tells_objects_apart_is_refused(labels, kind):
    with pytest.raises(ValueError, match=INSTEAD):
        read_mask(SEVERAL[kind](labels))


IDS = {dtype: st.integers(1, np.iinfo(dtype).max) for dtype in ("uint8", "uint16", "int32")}


@st.composite
def label_maps(draw) -> np.ndarray:
    """Two to five rectangles that may touch, each of another number."""
    dtype = draw(st.sampled_from(sorted(IDS)))
    first = draw(IDS[dtype])
    near = st.integers(max(first - 4, 1), min(first + 4, np.iinfo(dtype).max))
    ids = draw(
        st.lists(st.one_of(IDS[dtype], near), min_size=1, max_size=4, unique=True).filter(lambda ids: [first] != ids)
    )
    labels = np.zeros((40, 100), dtype)
    for number, value in enumerate(dict.fromkeys([first, *ids])):
        gap, height, width = draw(st.integers(0, 2)), draw(st.integers(3, 36)), draw(st.integers(3, 18))
        labels[gap : gap + height, 20 * number + gap : 20 * number + gap + width] = value
    return labels


@settings(max_examples=80, deadline=None)
@given(label_maps())
def test_objects_of_any_numbers_are_refused(labels):
    with pytest.raises(ValueError, match=INSTEAD):
        read_mask(tiff(labels))


@pytest.mark.parametrize(
    "ids", [(33, 34, 34), (254, 255, 255), (120, 121, 122), (5, 100, 101), (4, 250, 255), (128, 255, 255)]
)
def test_objects_of_numbers_that_look_like_noise_are_refused(labels, ids):
    with pytest.raises(ValueError, match=f"areas of the numbers {ids[0]}, .*{INSTEAD}"):
        read_mask(saved(relabelled(labels, ids)))


@pytest.mark.parametrize("form", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("greys", [(5, 100, 255), (255, 225, 255), (40, 255, 255), (180, 200, 220)])
def test_areas_that_are_well_apart_are_told_apart_in_lossy_formats(labels, form, greys):
    with pytest.raises(ValueError, match=f"areas of several greys.*{INSTEAD}"):
        read_mask(saved(relabelled(labels, greys), form, quality=75))


@pytest.mark.parametrize("side", [2, 5])
def test_a_map_of_a_thousand_small_objects_is_refused(side):
    labels = np.zeros((150, 150), np.uint16)
    corners = np.arange(0, 148 - side, side + 2)
    for number, (row, column) in enumerate(np.stack(np.meshgrid(corners, corners), -1).reshape(-1, 2), 1):
        labels[row : row + side, column : column + side] = number
    with pytest.raises(ValueError, match=INSTEAD):
        read_mask(saved(labels))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photo_is_no_mask(mode):
    for scene in ("astronaut", "cat", "rocket"):
        picture = Image.open(assets.photo(scene)).convert(mode)
        for file in (saved(picture), saved(picture, "jpeg")):
            with pytest.raises(ValueError, match=r"is it a photo|areas of several"):
                read_mask(file)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((9, 9), np.uint8), "is empty: all of its pixels are 0"),
        (np.where(np.eye(9) > 0, 2, -1).astype(np.int16), r"negative numbers \(down to -1\)"),
        (np.where(np.eye(9) > 0, 2, np.nan).astype(np.float32), "NaN or infinity"),
        (np.where(np.eye(9) > 0, 250, 190 + np.arange(81).reshape(9, 9) / 9), "no background: .* 190.111 to 250"),
        (np.zeros((5, 9, 9), np.uint8) + np.uint8(1), "5 pages, a mask has one"),
        (np.ones((9, 9, 5), np.uint8), "5 bands of uint8"),
        (np.ones((9, 9), np.complex64), "1 band of complex64"),
    ],
)
def test_what_is_no_mask_is_said(values, message):
    planes = {"planarconfig": "contig"} if values.shape[-1] == 5 else {}
    with pytest.raises(ValueError, match=rf"a\.tif.*{message}"):
        read_mask(tiff(values, photometric="minisblack", **planes), name="a.tif")


def test_small_numbers_do_not_survive_a_lossy_format(labels):
    with pytest.raises(ValueError, match=r"saved lossy with values up to [12]"):
        read_mask(saved((labels > 0).astype(np.uint8), "jpeg", quality=95))
