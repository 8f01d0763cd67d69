"""SBD in the official layout of its benchmark."""

import numpy as np
import pytest
from pycocotools import mask as coco
from scipy.io import savemat

from samjax.evaluation.datasets import open_dataset
from samjax.readers.record import BadRecord


def write_instances(path, instances: np.ndarray, categories: list[int]) -> None:
    """With all fields of the official files."""
    boundaries = np.empty((len(categories), 1), object)
    boundaries[:] = [[np.zeros(instances.shape, np.uint8)] for _ in categories]
    column = np.array(categories, np.uint8)[:, None]
    fields = {"Segmentation": instances.astype(np.uint8), "Boundaries": boundaries, "Categories": column}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTinst": fields})


@pytest.fixture
def instances(disc, bar) -> np.ndarray:
    """A bar of number 1, a disc of number 3, a void row."""
    instances = np.where(disc, 3, np.where(bar, 1, 0))
    instances[0] = 255
    return instances


@pytest.fixture
def folder(tmp_path, picture, photo, instances):
    for name in ("2008_000002", "2008_000051", "2009_000003"):
        picture(tmp_path / f"img/{name}.jpg", photo)
        write_instances(tmp_path / f"inst/{name}.mat", instances, [15, 7, 20])
    (tmp_path / "val.txt").write_text("2009_000003\n2008_000002\n")
    (tmp_path / "train.txt").write_text("2008_000051\n")
    return tmp_path


def test_every_instance_is_an_object_with_its_number_and_category(folder, disc, bar, instances):
    dataset = open_dataset(f"sbd={folder}")
    assert [dataset.name(index) for index in range(len(dataset))] == ["2009_000003", "2008_000002"]
    first, second = dataset[1].objects
    assert [(first.id, first.category), (second.id, second.category)] == [(1, 15), (3, 20)]
    np.testing.assert_array_equal(coco.decode(first.mask), instances == 1)
    np.testing.assert_array_equal(coco.decode(second.mask), instances == 3)
    for found in (first, second):
        np.testing.assert_array_equal(coco.decode(found.ignore), instances == 255)


def test_other_splits_are_named(folder):
    assert open_dataset(f"sbd={folder},train").name(0) == "2008_000051"


@pytest.mark.parametrize("place", ["dataset", "benchmark_RELEASE/dataset"])
def test_the_folder_of_the_archive_will_do(folder, tmp_path_factory, place):
    above = tmp_path_factory.mktemp("archive")
    (above / place).parent.mkdir(parents=True, exist_ok=True)
    folder.rename(above / place)
    assert len(open_dataset(f"sbd={above}")) == 2


def test_what_is_missing_is_said(folder, tmp_path_factory):
    with pytest.raises(ValueError, match=r"expected test\.txt, img and inst in .*, found img/, inst/, train\.txt, val"):
        open_dataset(f"sbd={folder},test")
    (folder / "inst/2008_000002.mat").unlink()
    with pytest.raises(ValueError, match=r"of the 2 names in .*val\.txt, 1 have no file in .*inst: 2008_000002\.mat"):
        open_dataset(f"sbd={folder}")
    with pytest.raises(ValueError, match=r"expected a folder inst in .*, found an empty folder"):
        open_dataset(f"sbd={tmp_path_factory.mktemp('empty')}")


def test_damaged_annotations_are_bad(folder, instances):
    dataset = open_dataset(f"sbd={folder},train")
    file = folder / "inst/2008_000051.mat"
    write_instances(file, instances[1:], [15, 7, 20])
    with pytest.raises(BadRecord, match=r"is for \(39, 60\) pixels \(height, width\), the photo has \(40, 60\)"):
        dataset[0]
    savemat(file, {"GTinst": {"Boundaries": instances}})
    with pytest.raises(BadRecord, match="has no Segmentation and Categories"):
        dataset[0]
    savemat(file, {"GTcls": {"Segmentation": instances}})
    with pytest.raises(BadRecord, match="has no variable GTinst"):
        dataset[0]
