"""Photos of more than three channels, from the array or the TIFF file to the mask."""

import dataclasses

import jax
import numpy as np
import pytest
from example_models import SMALL, random_photo, random_sam

from samjax import Prompts, SamAutomaticMaskGenerator, SamPredictor, pictures, transforms
from samjax.embeddings import EmbeddingStore

FIVE = dataclasses.replace(SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, channels=5))


@pytest.fixture(scope="module")
def photo():
    return np.concatenate([random_photo(60, 90), random_photo(60, 90, seed=1)[:, :, :2]], 2)


@pytest.fixture(scope="module")
def five():
    return random_sam(FIVE)


def test_the_first_three_channels_are_read_as_a_photo_is(photo):
    pixels = transforms.to_pixels(photo, FIVE)
    np.testing.assert_array_equal(pixels[:, :, :3], transforms.to_pixels(photo[:, :, :3], SMALL))


def test_further_channels_are_normalised_by_the_means_of_the_three(photo):
    mean, std = transforms.channel_statistics(5)
    np.testing.assert_allclose(mean[3:], (123.675 + 116.28 + 103.53) / 3, rtol=1e-6)
    np.testing.assert_allclose(std[3:], (58.395 + 57.12 + 57.375) / 3, rtol=1e-6)
    exact = np.full((64, 64, 5), 200, np.uint8)
    np.testing.assert_allclose(transforms.to_pixels(exact, FIVE)[0, 0], (200 - mean) / std, rtol=1e-6)


def test_a_photo_of_five_channels_is_segmented(five, photo):
    embedding = five.encode(photo)
    assert five.predict(embedding, Prompts.of(points=[[(20, 30)]])).logits.shape == (1, 3, 32, 32)
    other = photo.copy()
    other[:, :, 4] = 255 - other[:, :, 4]
    assert not np.array_equal(five.encode(other).features, embedding.features)


def test_predictor_everything_and_store_take_five_channels(five, photo, tmp_path):
    predictor = SamPredictor(five)
    predictor.set_image(photo)
    store = EmbeddingStore(tmp_path, five)
    store.put(photo, predictor.embedding)
    jax.tree.map(np.testing.assert_array_equal, store.get(photo), predictor.embedding)
    options = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 2, "tile": 64}
    assert SamAutomaticMaskGenerator(five, **options).generate(photo)


def test_photos_with_other_channels_are_refused(five, photo):
    for other in (photo[:, :, :3], photo[:, :, :4], photo[:, :, 0]):
        with pytest.raises(ValueError, match=r"an image must be an array \(H, W, 5\), channels last, got shape"):
            five.encode(other)
    with pytest.raises(ValueError, match="files are read in red, green and blue"):
        five.check_reads_files()
    random_sam(SMALL).check_reads_files()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_tiff_of_five_bands_is_read(planar, photo, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    bands = photo if planar == "contig" else np.moveaxis(photo, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", bands, planarconfig=planar, photometric="minisblack")
    np.testing.assert_array_equal(pictures.read_channels(tmp_path / "a.tif", 5), photo)
    with pytest.raises(ValueError, match=r"a\.tif: it is a TIFF of 5 bands .* and the model takes 4 channels"):
        pictures.read_channels(tmp_path / "a.tif", 4)


def test_sixteen_bits_are_stretched_over_all_channels_together(photo, tmp_path):
    import tifffile

    wide = photo.astype(np.uint16) * 100 + 7
    tifffile.imwrite(tmp_path / "a.tif", wide, photometric="minisblack", planarconfig="contig")
    read = pictures.read_channels(tmp_path / "a.tif", 5)
    low, high = int(photo.min()), int(photo.max())
    np.testing.assert_allclose(read, (photo.astype(float) - low) * 255 / (high - low), atol=0.51)


def test_a_file_that_is_no_tiff_has_no_five_channels(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: photos of 5 channels are TIFF files of 5 bands, and it is none"):
        pictures.read_channels(tmp_path / "a.png", 5)
