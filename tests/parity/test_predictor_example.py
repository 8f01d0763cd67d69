"""A program written for segment_anything runs after changing its import line, and answers the same."""

import numpy as np
import pytest
from parity.reference import build_reference, import_segment_anything

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

# The calls of the reference's predictor example: a truck by a point, by several points, by an earlier mask, by a box,
# by a box with a point, and by several boxes at once.
PROGRAM = """
import numpy as np
import torch
from segment_anything import sam_model_registry, SamPredictor

sam = sam_model_registry[model_type](checkpoint=sam_checkpoint)
sam.to(device=device)
predictor = SamPredictor(sam)
predictor.set_image(image)
results = {}

input_point = np.array([[500, 375]])
input_label = np.array([1])
masks, scores, logits = predictor.predict(
    point_coords=input_point, point_labels=input_label, multimask_output=True
)
results["point"] = masks, scores, logits

input_point = np.array([[500, 375], [1125, 625]])
mask_input = logits[np.argmax(scores), :, :]
for name, input_label in {"two points": np.array([1, 1]), "a point to leave out": np.array([1, 0])}.items():
    results[name] = predictor.predict(
        point_coords=input_point, point_labels=input_label, mask_input=mask_input[None, :, :], multimask_output=False
    )

input_box = np.array([425, 600, 700, 875])
results["box"] = predictor.predict(
    point_coords=None, point_labels=None, box=input_box[None, :], multimask_output=False
)
results["box and point"] = predictor.predict(
    point_coords=np.array([[575, 750]]), point_labels=np.array([0]), box=input_box, multimask_output=False
)

input_boxes = torch.tensor(
    [[75, 275, 1725, 850], [425, 600, 700, 875], [1375, 550, 1650, 800], [1240, 675, 1400, 750]],
    device=predictor.device,
)
transformed_boxes = predictor.transform.apply_boxes_torch(input_boxes, image.shape[:2])
masks, scores, logits = predictor.predict_torch(
    point_coords=None, point_labels=None, boxes=transformed_boxes, multimask_output=False
)
results["boxes"] = tuple(tensor.cpu().numpy() for tensor in (masks, scores, logits))
embedding = predictor.get_image_embedding()
"""


def test_the_predictor_example_gives_the_references_answers(photos, bundled, tmp_path, monkeypatch):
    from samjax import VARIANTS

    reference = import_segment_anything()
    config = VARIANTS["vit_tiny"]
    torch.save(bundled[0].state_dict(), tmp_path / "sam_vit_tiny.pth")

    def build_tiny(checkpoint):
        model = build_reference(config, seed=1)
        model.load_state_dict(torch.load(checkpoint))
        return model

    monkeypatch.setitem(reference.sam_model_registry, "vit_tiny", build_tiny)
    setting = {
        "model_type": "vit_tiny",
        "sam_checkpoint": str(tmp_path / "sam_vit_tiny.pth"),
        "device": "cpu",
        "image": photos["truck"],
    }
    theirs, ours = dict(setting), dict(setting)
    exec(PROGRAM, theirs)
    exec(PROGRAM.replace("from segment_anything import", "from samjax import"), ours)

    assert ours["embedding"].shape == theirs["embedding"].shape
    for name, expected in theirs["results"].items():
        for kind, theirs_array, ours_array in zip(
            ("masks", "scores", "logits"), expected, ours["results"][name], strict=True
        ):
            assert ours_array.shape == theirs_array.shape, (name, kind)
            assert ours_array.dtype == theirs_array.dtype, (name, kind)
            if kind == "masks":
                assert (ours_array == theirs_array).mean() >= 0.99999, name
            else:
                error = np.linalg.norm(ours_array - theirs_array) / np.linalg.norm(theirs_array)
                assert error <= 1e-4, (name, kind)
