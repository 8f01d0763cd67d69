"""`samjax evaluate` and what it is given."""

import json

import pytest
from evaluation.example_detections import detector_scene
from PIL import Image


@pytest.fixture
def samjax(tmp_path, monkeypatch, capsys):
    """Runs the command; returns (exit code, standard output, standard error)."""
    from samjax.cli import command

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))

    def run(*args) -> tuple[int, str, str]:
        try:
            code = command.main([str(arg) for arg in args])
        except SystemExit as left:  # tyro, for --help and for options that it does not know
            code = left.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    from example_models import SMALL, random_params

    from samjax import convert

    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    convert.write(path, SMALL, random_params(SMALL))
    return path


BOXY = """
import numpy as np

class Boxy:
    "Answers a box with the box, and points with the box that is 21 pixels wide and high around the last of them."

    def set_image(self, image):
        self.size = image.shape[:2]

    def predict(self, point_coords, point_labels, box, mask_input, multimask_output):
        if box is None:
            box = np.concatenate([point_coords[-1] - 10, point_coords[-1] + 10]).clip(0)
        masks = np.zeros((3 if multimask_output else 1, *self.size), bool)
        x0, y0, x1, y1 = np.round(box).astype(int)
        masks[:, y0 : y1 + 1, x0 : x1 + 1] = True
        return masks, np.ones(len(masks)), np.full((len(masks), 8, 8), 2)
"""


@pytest.fixture
def boxy(tmp_path, monkeypatch) -> str:
    """What --predictor takes; its module lies in the current folder."""
    (tmp_path / "boxy.py").write_text(BOXY)
    monkeypatch.chdir(tmp_path)
    return "boxy:Boxy"


@pytest.fixture(scope="session")
def coco(tmp_path_factory):
    """Two photos of shapes with annotations in COCO's form: (images, annotations.json, its content)."""
    from example_models import shapes_photo

    from samjax.ops.rle import encode_rle, rle_area, rle_box

    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in (1, 2):
        rgb, masks = shapes_photo(90, 120, seed=number)
        Image.fromarray(rgb).save(folder / "images" / f"{number:012}.png")
        images.append({"id": number, "height": 90, "width": 120, "file_name": f"{number:012}.png"})
        for mask in masks:
            rle = encode_rle(mask)
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 3, "iscrowd": 0}
            annotations.append({**entry, "segmentation": rle, "area": rle_area(rle), "bbox": rle_box(rle)})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "shape"}]}
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return folder / "images", path, content


@pytest.fixture(scope="session")
def scene() -> tuple[dict, list[dict]]:
    """(annotations, results): see `detector_scene`."""
    return detector_scene()
