"""Automatic mask generation beside Meta's: seconds for encoder, decoder and post-processing, and peak memory.

    python benchmarks/everything.py [--variant vit_b] [--photo FILE] [--points-per-side 32] [--repeats 3] [--keep 0.35]

Needs torch and segment-anything-py (`make parity` installs them). Both load the same checkpoint with random weights, on
which the default thresholds would let nothing through; thresholds are set, alike for both, such that a share `--keep`
of the masks passes the predicted IoU and half of those the stability score.

Stages. "encoder": the photo's embedding. "decoder": low-resolution logits of all points in batches of 64. "whole":
`generate`, run-length encoded. Post-processing is what the whole takes beyond the other two.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contest import Stages, apart, contest, machine

BUNDLED = Path(__file__).parents[1] / "samjax" / "assets" / "astronaut.jpg"
STAGES = ("encoder", "decoder", "whole")


def read_photo(path: Path | None) -> np.ndarray:
    """The photo; by default the bundled one enlarged to 1200 x 1800."""
    from PIL import Image

    picture = Image.open(path or BUNDLED).convert("RGB")
    return np.asarray(picture if path else picture.resize((1800, 1200), Image.Resampling.BICUBIC))


def write_confident_checkpoint(variant: Any, path: Path) -> None:
    """A checkpoint of `variant`, a name or a `SamConfig`, in Meta's format. Weights are random and predicted IoUs
    positive: a threshold of 0 or less would turn the filter off."""
    from samjax import Sam, convert

    sam = Sam.init(variant)
    head = sam.params["mask_decoder"]["iou_prediction_head"]["layers"]
    last = head[max(head)]
    last["bias"] = last["bias"] + 0.5
    convert.write(path, sam.config, sam.params)


def thresholds(checkpoint: Path, photo: np.ndarray, keep: float) -> dict[str, float]:
    """What lets a share `keep` of the masks through the predicted IoU, and half of those through the stability."""
    import samjax

    sam = samjax.load(checkpoint)
    embedding = sam.encode(photo)
    points = np.random.default_rng(0).uniform((0, 0), photo.shape[1::-1], (64, 1, 2))
    prediction = sam.predict(embedding, samjax.Prompts.of(points.astype(np.float32)))
    threshold = float(np.quantile(prediction.iou, 1 - keep))
    best = np.argwhere(prediction.iou > threshold)[::4]  # enough to know the median by
    low = np.stack([prediction.logits[n, m] for n, m in best])
    logits = samjax.transforms.upscale_masks(low, photo.shape[:2], sam.config, threshold=None)
    offset = 0.2 * float(np.std(logits[0]))
    stability = [(mask > offset).sum() / max((mask > -offset).sum(), 1) for mask in logits]
    return {
        "pred_iou_thresh": threshold,
        "stability_score_thresh": float(np.median(stability)),
        "stability_score_offset": offset,
    }


def samjax_stages(checkpoint: Path, photo: np.ndarray, options: dict[str, Any]) -> Stages:
    import jax

    import samjax

    sam = samjax.load(checkpoint)
    generator = samjax.SamAutomaticMaskGenerator(sam, **options)
    nothing = samjax.SamAutomaticMaskGenerator(sam, **{**options, "pred_iou_thresh": 1e9})
    state = {}

    def encode():
        state["embedding"] = jax.block_until_ready(sam.encode(photo))

    def decode():
        size = photo.shape[0], photo.shape[1]
        view = generator.generator.views(size)[0]
        found = nothing.generator.find(state["embedding"], view, size, generator.config.points_per_batch)
        jax.block_until_ready(found)

    def whole():
        print(f"samjax: {len(generator.generate(photo))} masks", file=sys.stderr)

    return dict(zip(STAGES, (encode, decode, whole), strict=True))


def torch_stages(checkpoint: Path, photo: np.ndarray, options: dict[str, Any]) -> Stages:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import torch
    from parity.reference import build_reference, import_segment_anything

    from samjax.convert import describe

    reference = build_reference(describe(checkpoint).config)
    reference.load_state_dict(torch.load(checkpoint))
    segment_anything = import_segment_anything()
    generator = segment_anything.SamAutomaticMaskGenerator(reference, **options)
    predictor = segment_anything.SamPredictor(reference)
    size = photo.shape[:2]

    def encode():
        predictor.set_image(photo)

    @torch.no_grad()
    def decode():
        points = predictor.transform.apply_coords(generator.point_grids[0] * size[::-1], size)
        for batch in np.split(points, range(64, len(points), 64)):
            coords = torch.from_numpy(batch)[:, None]
            labels = torch.ones(len(batch), 1, dtype=torch.int)
            sparse, dense = reference.prompt_encoder((coords, labels), None, None)
            positions = reference.prompt_encoder.get_dense_pe()
            reference.mask_decoder(predictor.features, positions, sparse, dense, multimask_output=True)

    def whole():
        print(f"PyTorch: {len(generator.generate(photo))} masks", file=sys.stderr)

    return dict(zip(STAGES, (encode, decode, whole), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_b")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=float, default=0.35)
    arguments = parser.parse_args()

    photo = read_photo(arguments.photo)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "random.pth"
        apart(write_confident_checkpoint, arguments.variant, checkpoint)
        options = apart(thresholds, checkpoint, photo, arguments.keep)
        print(
            f"{arguments.variant}, {photo.shape[0]} x {photo.shape[1]}, {arguments.points_per_side}² points, float32,"
        )
        print(f"median of {arguments.repeats}; {machine()}")
        print(", ".join(f"{name} {value:.4g}" for name, value in options.items()))
        options |= {"points_per_side": arguments.points_per_side, "output_mode": "coco_rle"}
        with contest({"PyTorch": torch_stages, "samjax": samjax_stages}, checkpoint, photo, options) as contestants:
            results = {stage: contestants.run(stage, arguments.repeats) for stage in STAGES}

    rows = {stage: {name: result.seconds for name, result in by_name.items()} for stage, by_name in results.items()}
    encoder, decoder, whole = (rows[stage] for stage in STAGES)
    rows["post-processing"] = {name: whole[name] - encoder[name] - decoder[name] for name in whole}
    rows["decoder + post-processing"] = {name: whole[name] - encoder[name] for name in whole}
    print("\n| stage | PyTorch s | samjax s | times faster |\n|---|---|---|---|")
    for stage, seconds in rows.items():
        ratio = seconds["PyTorch"] / seconds["samjax"]
        print(f"| {stage} | {seconds['PyTorch']:.2f} | {seconds['samjax']:.2f} | {ratio:.2f} |")
    peak = {name: result.peak / 1e9 for name, result in results["whole"].items()}
    print(f"\npeak memory: PyTorch {peak['PyTorch']:.2f} GB, samjax {peak['samjax']:.2f} GB")
    compiling = results["whole"]["samjax"].first - results["whole"]["samjax"].seconds
    print(f"first run of samjax's whole: {compiling:.1f} s longer")


if __name__ == "__main__":
    main()
