"""The reference's second implementation, `transformers.SamModel`, with the same weights."""

import numpy as np
import pytest
from example_models import SMALL
from parity.comparison import CASES, EMBEDDING_BAR, IOU_BAR, LOGITS_BAR, prompts_of, relative_error

from samjax import convert, transforms

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def hugging_face(small, tmp_path_factory):
    """`SamModel` with the weights of the small reference."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("huggingface")
    torch.save(small[0].model.state_dict(), folder / "sam.pth")
    convert.convert(folder / "sam.pth", folder / "model", "huggingface")
    return transformers.SamModel.from_pretrained(folder / "model").eval()


@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one mask"])
@pytest.mark.parametrize("case", ["one point", "five points", "a box", "a mask and a box", "all together"])
def test_predictions(hugging_face, small, case, multimask):
    import torch

    _, sam = small
    photo = np.random.default_rng(0).integers(0, 256, (*SMALL.image_size, 3), np.uint8)  # fits, so frames are the same
    embedding = sam.encode(photo)
    pixels = torch.tensor(transforms.to_pixels(photo, SMALL)).permute(2, 0, 1)[None]
    arguments = CASES[case].arguments(SMALL.image_size, SMALL.mask_size)
    tensors = {name: None if x is None else torch.tensor(x).float() for name, x in arguments.items()}
    with torch.no_grad():
        output = hugging_face(
            pixel_values=pixels,
            input_points=None if tensors["point_coords"] is None else tensors["point_coords"][None, None],
            input_labels=None if tensors["point_labels"] is None else tensors["point_labels"].int()[None, None],
            input_boxes=None if tensors["box"] is None else tensors["box"][None, None],
            input_masks=None if tensors["mask_input"] is None else tensors["mask_input"][None],
            multimask_output=multimask,
        )
        features = hugging_face.get_image_embeddings(pixels)
    assert relative_error(embedding.features, features[0].permute(1, 2, 0)) <= EMBEDDING_BAR
    ours = sam.predict(embedding, prompts_of(arguments), multimask=multimask)
    assert relative_error(ours.logits[0], output.pred_masks[0, 0]) <= LOGITS_BAR
    assert relative_error(ours.iou[0], output.iou_scores[0, 0]) <= IOU_BAR


@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
def test_a_model_of_five_channels_goes_there_and_back(tmp_path):
    import dataclasses

    import torch
    from example_models import random_sam

    transformers = pytest.importorskip("transformers")
    five = dataclasses.replace(SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, channels=5))
    sam = random_sam(five)
    convert.write(tmp_path / "model", five, sam.params, to="huggingface")
    assert convert.read(tmp_path / "model")[0] == five
    photo = np.random.default_rng(0).integers(0, 256, (*SMALL.image_size, 5), np.uint8)
    pixels = torch.tensor(transforms.to_pixels(photo, five)).permute(2, 0, 1)[None]
    with torch.no_grad():
        features = transformers.SamModel.from_pretrained(tmp_path / "model").eval().get_image_embeddings(pixels)
    assert relative_error(sam.encode(photo).features, features[0].permute(1, 2, 0)) <= EMBEDDING_BAR
