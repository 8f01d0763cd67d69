"""Writes the golden files from Meta's code: `PYTHONPATH=tests python tests/golden/make.py` (needs torch).

They hold what the reference answers with the parameters of `example_models.random_params`, which need no torch to be
made again. `tests/test_golden.py` compares with them, `tests/parity/test_golden_files.py` checks that they are current.
"""

from pathlib import Path

import numpy as np
from example_models import SMALL, faint, random_params, random_photo
from parity.comparison import CASES

FOLDER = Path(__file__).parent
PHOTOS = {"wide": random_photo(60, 90, seed=1), "tall": random_photo(75, 40, seed=2)}
NON_SQUARE = (40, 88)


def cases_of(photo: str) -> list[str]:
    """Every combination of prompts with three masks on one photo, a few with one mask on the other."""
    return list(CASES) if photo == "wide" else ["one point", "a box and four points", "all together"]


def answers() -> dict[str, np.ndarray]:
    """Embeddings, logits, IoU predictions and final masks (as bits) for every photo and combination of prompts."""
    import torch
    from parity.reference import build_reference, import_segment_anything, load_params

    reference = build_reference(SMALL)
    load_params(reference, random_params(SMALL))
    predictor = import_segment_anything().SamPredictor(reference)
    found = {}
    for photo_name, photo in PHOTOS.items():
        predictor.set_image(photo)
        found[f"{photo_name}/features"] = predictor.features[0].permute(1, 2, 0).numpy()
        for case_name in cases_of(photo_name):
            case = CASES[case_name]
            arguments = case.arguments(photo.shape[:2], SMALL.mask_size)
            masks, iou, logits = predictor.predict(**arguments, multimask_output=photo_name == "wide")
            key = f"{photo_name}/{case_name}"
            found |= {f"{key}/logits": logits, f"{key}/iou": iou, f"{key}/masks": np.packbits(masks)}

    load_params(reference, faint(random_params(SMALL)))
    predictor.set_image(PHOTOS["wide"])
    found["faint/features"] = predictor.features[0].permute(1, 2, 0).numpy()
    arguments = CASES["all together"].arguments(PHOTOS["wide"].shape[:2], SMALL.mask_size)
    _, found["faint/iou"], found["faint/logits"] = predictor.predict(**arguments, multimask_output=False)

    load_params(reference, random_params(SMALL))
    encoder = reference.image_encoder
    rows, columns = (side // SMALL.image_encoder.patch_size for side in NON_SQUARE)
    table = torch.nn.functional.interpolate(
        encoder.pos_embed.detach().permute(0, 3, 1, 2), (rows, columns), mode="bicubic", align_corners=False
    )
    encoder.pos_embed = torch.nn.Parameter(table.permute(0, 2, 3, 1))
    pixels = non_square_pixels()
    with torch.no_grad():
        features = encoder(torch.tensor(pixels).permute(2, 0, 1)[None])
    found["non-square/features"] = features[0].permute(1, 2, 0).numpy()
    return found


def non_square_pixels() -> np.ndarray:
    """Normalised pixels for the model resized to `NON_SQUARE`."""
    return (random_photo(*NON_SQUARE, seed=3).astype(np.float32) - 128) / 64


if __name__ == "__main__":
    np.savez_compressed(FOLDER / "small.npz", **answers())
