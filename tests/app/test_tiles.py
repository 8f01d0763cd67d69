"""Tiles of large photos."""

import io

import numpy as np
import pytest
from example_app import id_of
from example_models import random_photo
from PIL import Image


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def large(tmp_path):
    """A photo of three levels, and its tiles."""
    from samjax.app.library import Library
    from samjax.app.tiles import Tiles

    photo = np.asarray(Image.fromarray(random_photo(103, 130)).resize((1301, 1030), Image.Resampling.BICUBIC))
    Image.fromarray(photo).save(tmp_path / "large.png")
    return photo, Tiles(Library(str(tmp_path / "large.png"), tmp_path / "out")), id_of("large.png")


@pytest.mark.parametrize(("size", "count"), [((1, 1), 1), ((512, 512), 1), ((513, 5), 2), ((1024, 1025), 3)])
def test_the_last_level_fits_a_tile(size, count):
    from samjax.app.tiles import level_count

    assert level_count(size) == count


def test_halving_is_the_mean_of_squares_with_sides_rounded_up():
    from samjax.app.tiles import halved

    photo = random_photo(2051, 7)
    half = halved(photo)
    assert half.shape == (1026, 4, 3)
    means = photo[:2050, :6].reshape(1025, 2, 3, 2, 3).mean((1, 3))
    assert np.abs(half[:1025, :3] - means).max() <= 0.5
    assert np.abs(half[1025, :3] - photo[2050, :6].reshape(3, 2, 3).mean(1)).max() <= 0.5
    np.testing.assert_array_equal(half[1025, 3], photo[2050, 6])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_tiles_of_a_level_are_the_photo(large, level):
    from samjax.app.tiles import halved

    photo, tiles, id = large
    for _ in range(level):
        photo = halved(photo)
    height, width = photo.shape[:2]
    whole = np.concatenate(
        [
            np.concatenate([opened(tiles.tile(id, level, x, y)[0]) for x in range(-(-width // 512))], 1)
            for y in range(-(-height // 512))
        ]
    )
    assert whole.shape == photo.shape
    assert np.abs(whole.astype(int) - photo).mean() < 4  # JPEG; another tile would be far off


@pytest.mark.parametrize("place", [(3, 0, 0), (-1, 0, 0), (0, 3, 0), (0, 0, 3), (0, -1, 0), (0, 10**9, 0)])
def test_there_are_no_tiles_beyond_the_photo(large, place):
    _, tiles, id = large
    with pytest.raises(IndexError):
        tiles.tile(id, *place)


def test_a_tile_is_made_once(large):
    _, tiles, id = large
    assert tiles.tile(id, 1, 0, 0)[0] is tiles.tile(id, 1, 0, 0)[0]


def test_memory_is_bounded(large, tmp_path):
    from samjax.app.library import Library
    from samjax.app.tiles import Tiles

    library = Library(str(tmp_path / "large.png"), tmp_path / "out")
    tiles = Tiles(library, tile_memory=200_000, level_memory=1_000)
    for y in range(3):
        for x in range(3):
            tiles.tile(id_of("large.png"), 0, x, y)
    assert tiles._tiles.total <= 200_000


def test_a_thumbnail_keeps_the_photo_s_proportions(large):
    _, tiles, id = large
    assert opened(tiles.thumbnail(id)[0]).shape == (127, 160, 3)
