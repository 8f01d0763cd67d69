"""Label maps as Pillow reads them."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from samjax.writers import FORMATS, Options


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_pillow_reads_16_bits_in_which_small_masks_lie_on_large_ones(found, masks, tmp_path, suffix):
    (path,) = FORMATS["labelmap"].write(found, tmp_path, Options(labelmap_suffix=suffix))
    assert path == tmp_path / f"shapes_labels.{suffix}"
    with Image.open(path) as picture:
        assert picture.mode == "I;16"
        labels = np.asarray(picture)
    expected = np.zeros((80, 120), int)
    numbered = list(enumerate(masks.values(), start=1))
    for number, mask in sorted(numbered, key=lambda pair: -pair[1].sum()):
        expected[mask] = number
    np.testing.assert_array_equal(labels, expected)


@pytest.fixture
def crowd(found, monkeypatch):
    """More masks than 16 bits can number; their map is not computed, which would take long."""
    monkeypatch.setattr("samjax.writers.photo.label_map", lambda records, size: np.full(size, len(records), np.int32))
    return dataclasses.replace(found, records=found.records[:1] * 65_536)


def test_more_masks_than_16_bits_can_number_make_a_32_bit_tiff(crowd, tmp_path):
    (path,) = FORMATS["labelmap"].write(crowd, tmp_path, Options(labelmap_suffix="tiff"))
    with Image.open(path) as picture:
        assert picture.mode == "I"
        assert np.asarray(picture).max() == 65_536


def test_a_png_of_them_is_refused(crowd, tmp_path):
    with pytest.raises(ValueError, match="use --labelmap-suffix tiff"):
        FORMATS["labelmap"].write(crowd, tmp_path, Options())
    assert not (tmp_path / "shapes_labels.png").exists()
