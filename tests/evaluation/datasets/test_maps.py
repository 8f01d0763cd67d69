"""Two folders of maps, in all the ways that pictures hold numbers."""

import numpy as np
import pytest
from PIL import Image

from samjax.evaluation.datasets import grey_pairs, label_pairs
from samjax.evaluation.protocol import Dataset

LABELS = np.array([[0, 1, 2], [3, 200, 255]])


@pytest.fixture
def write(tmp_path):
    """Writes a picture; returns the folder's path."""

    def save(name: str, values, mode: str | None = None) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.asarray(values)) if mode != "P" else Image.fromarray(values.astype(np.uint8))
        if mode == "P":
            picture.putpalette([7, 77, 177] * 256)
        picture.save(path)
        return str(tmp_path / name.split("/")[0])

    return save


def test_maps_are_paired_by_name_whatever_their_endings(write):
    truth = write("truth/b.png", LABELS, "P")
    write("truth/town/a.tif", (257 * LABELS).astype(np.uint16))
    predicted = write("predicted/b.bmp", LABELS.astype(np.uint8))
    write("predicted/town/a.png", (257 * LABELS).astype(np.uint16))
    write("predicted/c.png", LABELS.astype(np.uint8))  # without a truth
    pairs = label_pairs(predicted, truth)
    assert isinstance(pairs, Dataset)
    assert [pairs.name(index) for index in range(len(pairs))] == ["b", "town/a"]
    for index, factor in enumerate((1, 257)):
        assert pairs[index].name == pairs.name(index)
        assert np.array_equal(pairs[index].truth, factor * LABELS)
        assert np.array_equal(pairs[index].predicted, factor * LABELS)


def test_black_and_white_are_labels_0_and_1_but_greys_0_and_255(write):
    mask = LABELS > 2
    folder = write("maps/a.png", mask)
    assert np.array_equal(label_pairs(folder, folder)[0].truth, mask)
    assert np.array_equal(grey_pairs(folder, folder)[0].truth, 255 * mask)


@pytest.mark.parametrize("channels", [3, 4])
def test_greys_may_be_stored_as_colours(write, channels):
    folder = write("maps/a.png", np.repeat(LABELS.astype(np.uint8)[..., None], channels, 2))
    assert np.array_equal(grey_pairs(folder, folder)[0].predicted, LABELS)
    folder = write("palette/a.png", LABELS, "P")
    with pytest.raises(ValueError, match=r"a\.png: it has colours; expected a grey picture"):
        grey_pairs(folder, folder)[0]


def test_other_contents_have_other_digests(write):
    truth, predicted = write("truth/a.png", LABELS.astype(np.uint8)), write("mine/a.png", LABELS.astype(np.uint8))
    before = label_pairs(predicted, truth).digests()
    assert before == label_pairs(predicted, truth).digests()
    write("mine/a.png", LABELS.astype(np.uint8)[::-1])
    after = label_pairs(predicted, truth).digests()
    assert after["truth"] == before["truth"]
    assert after["predicted"] != before["predicted"]


def test_bad_folders_and_maps_are_explained(write, tmp_path):
    small = np.zeros((1, 2), np.uint8)
    truth, mine = write("truth/a.png", small), write("mine/a.png", small)
    write("truth/b.png", small)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        label_pairs(str(tmp_path / "nowhere"), truth)
    with pytest.raises(ValueError, match=r"lacks 1 of the 2 maps in .*: b$"):
        label_pairs(mine, truth)
    write("mine/b.png", np.zeros((1, 3), np.uint8))
    with pytest.raises(ValueError, match=r"b\.png has 3 x 1 pixels, .*b\.png has 2 x 1; resize"):
        label_pairs(mine, truth)[1]
    (tmp_path / "mine/b.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"mine/b\.png.*cannot be read"):
        label_pairs(mine, truth)[1]
    write("mine/b.png", np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"b\.png: it is a picture in RGB; a label map has one number a pixel"):
        label_pairs(mine, truth)[1]
    write("mine/b.png", np.zeros((1, 2), np.uint16))
    with pytest.raises(ValueError, match=r"expected grey of 8 bits"):
        grey_pairs(mine, truth)[1]
    write("mine/a.tif", small)
    with pytest.raises(ValueError, match=r"two maps called a: .*a\.png and a\.tif"):
        label_pairs(mine, truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no maps"):
        label_pairs(str(tmp_path / "empty"), truth)
