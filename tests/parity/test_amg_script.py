"""A program written for Meta's package, as its scripts/amg.py is, writes the same files with samjax in its place."""

import csv
import json
import types
from pathlib import Path

import numpy as np
import pytest
from example_models import shapes_photo, shapes_sam

import samjax
from samjax import convert
from samjax.cli import command

pytestmark = pytest.mark.parity
OPTIONS = {"points_per_side": 10, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7, "crop_n_layers": 1}
COLUMNS = (
    "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,"
    "crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
)


def program(package: types.ModuleType, model, photo: Path, out: Path, mode: str) -> None:
    """Reads with OpenCV, finds everything, and writes a folder of PNGs with a table, or JSON."""
    import cv2

    model.to(device="cpu")
    generator = package.SamAutomaticMaskGenerator(model, output_mode=mode, **OPTIONS)
    masks = generator.generate(cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB))
    out.mkdir()
    if mode == "coco_rle":
        (out / f"{photo.stem}.json").write_text(json.dumps(masks))
        return
    folder = out / photo.stem
    folder.mkdir()
    rows = [COLUMNS]
    for number, mask in enumerate(masks):
        cv2.imwrite(str(folder / f"{number}.png"), mask["segmentation"] * 255)
        row = [number, mask["area"], *mask["bbox"], *mask["point_coords"][0]]
        row += [mask["predicted_iou"], mask["stability_score"], *mask["crop_box"]]
        rows.append(",".join(str(value) for value in row))
    (folder / "metadata.csv").write_text("\n".join(rows))


def assert_same_folders(ours: Path, theirs: Path) -> None:
    from PIL import Image

    names = sorted(path.name for path in theirs.iterdir())
    assert len(names) > 10
    assert sorted(path.name for path in ours.iterdir()) == names
    tables = [list(csv.reader((folder / "metadata.csv").read_text().splitlines())) for folder in (ours, theirs)]
    assert tables[0][0] == tables[1][0]
    for mine, other in zip(*(np.array(table[1:], float) for table in tables), strict=True):
        np.testing.assert_allclose(mine[[1, 8, 9]], other[[1, 8, 9]], rtol=1e-3)
        np.testing.assert_array_equal(np.delete(mine, [1, 8, 9]), np.delete(other, [1, 8, 9]))
    for name in names[:-1]:
        masks = [np.asarray(Image.open(folder / name)) for folder in (ours, theirs)]
        assert masks[0].dtype == masks[1].dtype
        assert (masks[0] == masks[1]).mean() > 0.9999


def assert_same_records(ours: Path, theirs: Path) -> None:
    mine, other = (json.loads(path.read_text()) for path in (ours, theirs))
    assert [record.keys() for record in mine] == [record.keys() for record in other]
    for key in ("bbox", "point_coords", "crop_box"):
        assert [record[key] for record in mine] == [record[key] for record in other]
    assert [type(record["segmentation"]["counts"]) for record in mine] == [str] * len(other)


@pytest.fixture(scope="module")
def made(tmp_path_factory, segment_anything) -> Path:
    """A folder with photo.png, shapes.pth, and what the program writes with Meta's package."""
    from example_models import SHAPES
    from parity.reference import build_reference, load_params
    from PIL import Image

    folder = tmp_path_factory.mktemp("amg")
    Image.fromarray(shapes_photo(200, 260, seed=7, count=20)[0]).save(folder / "photo.png")
    sam = shapes_sam()
    convert.write(folder / "shapes.pth", sam.config, sam.params)
    reference = build_reference(SHAPES)
    load_params(reference, sam.params)
    for mode in ("binary_mask", "coco_rle"):
        program(segment_anything, reference, folder / "photo.png", folder / mode, mode)
    return folder


def test_the_program_writes_the_same_files(made, tmp_path):
    for mode in ("binary_mask", "coco_rle"):
        model = samjax.drop_in.predictor.RegistryModel(samjax.load(made / "shapes.pth"))
        program(samjax, model, made / "photo.png", tmp_path / mode, mode)
    assert_same_folders(tmp_path / "binary_mask" / "photo", made / "binary_mask" / "photo")
    assert_same_records(tmp_path / "coco_rle" / "photo.json", made / "coco_rle" / "photo.json")


def test_the_command_writes_the_same_files(made, tmp_path):
    flags = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    arguments = [str(made / "photo.png"), "--checkpoint", str(made / "shapes.pth"), "--out", str(tmp_path)]
    assert command.main(["everything", *arguments, *flags, "--format", "png", "--convert-to-rle"]) == 0
    assert_same_folders(tmp_path / "photo", made / "binary_mask" / "photo")
    assert_same_records(tmp_path / "photo.json", made / "coco_rle" / "photo.json")
