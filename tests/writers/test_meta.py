"""The files of segment_anything's scripts/amg.py."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from samjax.writers import FORMATS, Options


def test_rle_is_the_list_of_records(found, tmp_path):
    (path,) = FORMATS["rle"].write(found, tmp_path, Options())
    assert path == tmp_path / "shapes.json"
    assert json.loads(path.read_text()) == found.records


def test_png_is_a_folder_of_masks_with_a_table(found, masks, tmp_path):
    (folder,) = FORMATS["png"].write(found, tmp_path, Options())
    assert folder == tmp_path / "shapes"
    for number, mask in enumerate(masks.values()):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{number}.png")), mask * np.uint8(255))
    text = (folder / "metadata.csv").read_text()
    assert text.splitlines()[0] == (
        "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,"
        "crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
    )
    assert text.splitlines()[9] == "8,1,7,9,0,0,7.5,9.5,0.908,0.96,0,0,120,80"
    assert not text.endswith("\n")
    rows = list(csv.DictReader(text.splitlines()))
    assert [float(row["predicted_iou"]) for row in rows] == [record["predicted_iou"] for record in found.records]


def test_png_replaces_its_own_folder_and_no_other(found, tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "99.png").touch()
    FORMATS["png"].write(found, tmp_path, Options())
    assert not (tmp_path / "shapes" / "99.png").exists()
    (tmp_path / "shapes" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        FORMATS["png"].write(found, tmp_path, Options())
