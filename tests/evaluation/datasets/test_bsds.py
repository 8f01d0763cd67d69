"""BSDS500 in its official layout."""

import numpy as np
import pytest
from example_annotations import jpeg
from pycocotools import mask as coco
from scipy.io import savemat
from skimage.segmentation import find_boundaries

from samjax.evaluation.datasets import AnnotatedEdges, read_bsds
from samjax.evaluation.datasets.bsds import BsdsSegments
from samjax.evaluation.protocol import Dataset

PHOTO = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)


def halves(column: int, number: int = 2) -> np.ndarray:
    segmentation = np.ones((8, 12), np.uint16)
    segmentation[:, column:] = number
    return segmentation


def write_annotations(path, segmentations) -> None:
    """As the official files: a row of cells, each a struct with two fields."""
    cells = np.empty((1, len(segmentations)), object)
    for number, segmentation in enumerate(segmentations):
        boundary = find_boundaries(segmentation, mode="inner").astype(np.uint8)
        cells[0, number] = {"Segmentation": segmentation, "Boundaries": boundary}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": cells})


@pytest.fixture
def folder(tmp_path):
    for name in ("100", "20"):
        (tmp_path / "images/val").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"images/val/{name}.jpg").write_bytes(jpeg(PHOTO))
        write_annotations(tmp_path / f"groundTruth/val/{name}.mat", [halves(4), halves(7, number=300)])
    (tmp_path / "images/val/Thumbs.db").write_bytes(b"Windows leaves this in the archive")
    return tmp_path


def test_a_photo_has_what_each_annotator_drew(folder):
    photos = read_bsds(folder, "val")
    assert [photos.name(index) for index in range(len(photos))] == ["100", "20"]
    photo = photos[1]
    assert isinstance(photo, AnnotatedEdges)
    assert photo.name == "20"
    assert photo.rgb.shape == (8, 12, 3)
    for column, boundary, segmentation in zip((4, 7), photo.boundaries, photo.segmentations, strict=True):
        assert boundary.dtype == bool
        assert np.flatnonzero(boundary.any(0)).tolist() == [column - 1, column]
        assert (np.diff(segmentation.astype(int), axis=1) != 0).any(0).nonzero()[0].tolist() == [column - 1]


def test_segments_of_all_annotators_are_objects(folder):
    segments = BsdsSegments(folder, "val")
    assert isinstance(segments, Dataset)
    objects = {found.id: coco.decode(found.mask) for found in segments[0].objects}
    assert list(objects) == ["1/1", "1/2", "2/1", "2/300"]
    assert np.array_equal(objects["2/300"], halves(7) == 2)
    assert np.array_equal(objects["1/1"], halves(4) == 1)


@pytest.mark.parametrize("place", ["data", "BSDS500/data", "BSR/BSDS500/data"])
def test_the_folder_of_the_archive_will_do(folder, tmp_path_factory, place):
    above = tmp_path_factory.mktemp("archive")
    (above / place).parent.mkdir(parents=True, exist_ok=True)
    folder.rename(above / place)
    assert len(read_bsds(str(above), "val")) == 2


def test_what_is_missing_is_said(folder, tmp_path_factory):
    with pytest.raises(ValueError, match=r"expected the folders images/test and groundTruth/test in .*found ground.*/"):
        read_bsds(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "photo.png").touch()
    with pytest.raises(ValueError, match=r"expected a folder groundTruth in .*, found photo\.png"):
        read_bsds(elsewhere, "val")
    with pytest.raises(ValueError, match="found no such folder"):
        read_bsds(elsewhere / "nowhere", "val")
    (folder / "groundTruth/val/20.mat").unlink()
    with pytest.raises(ValueError, match=r"expected one file \(\.mat\) in .* for 20\.jpg there is none"):
        read_bsds(folder, "val")


def test_damaged_annotations_are_errors(folder):
    file = folder / "groundTruth/val/20.mat"
    write_annotations(file, [halves(4)[:, 1:]])
    with pytest.raises(ValueError, match=r"annotator 1 drew on \(8, 11\) pixels .* the photo has \(8, 12\)"):
        read_bsds(folder, "val")[1]
    savemat(file, {"other": 1})
    with pytest.raises(ValueError, match=r"20\.mat has no variable groundTruth"):
        read_bsds(folder, "val")[1]
    file.write_bytes(b"no MATLAB file" * 20)
    with pytest.raises(ValueError, match=r"20\.mat cannot be read as a MATLAB file"):
        read_bsds(folder, "val")[1]


def test_real_boundaries_lie_between_real_segments(test_data):
    photos = read_bsds(test_data / "bsds500", "val")
    assert len(photos) == 100
    photo = photos[0]
    assert photo.name == "101085"
    assert len(photo.boundaries) == len(photo.segmentations) == 5
    for boundary, segmentation in zip(photo.boundaries, photo.segmentations, strict=True):
        assert not (boundary & ~find_boundaries(segmentation, connectivity=2)).any()
        assert boundary.any()
    segments = BsdsSegments(test_data / "bsds500", "val")[0]
    assert len(segments.objects) == sum(len(np.unique(one)) for one in photo.segmentations)
