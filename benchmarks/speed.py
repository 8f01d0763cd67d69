"""samjax beside Meta's PyTorch code: encoder, decoder and a whole prediction, in one run.

    python benchmarks/speed.py [--variant vit_b] [--repeats 5] [--out table.md]

Needs torch and segment-anything-py (`make parity` installs them). Times are medians of warm repeats; compile time and
peak memory stand apart (`contest.py`). samjax's encoder stage includes resizing the photo, PyTorch's does not.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from contest import Stages, apart, contest, machine

PHOTO = Path(__file__).parents[1] / "samjax" / "assets" / "astronaut.jpg"
STAGES = ("encoder", "decoder, 1 prompt", "decoder, 64 prompts", "whole predict")


def points(count: int) -> np.ndarray:
    """(count, 1, 2) points in the 600 x 400 photo."""
    return np.random.default_rng(0).uniform((0, 0), (600, 400), (count, 1, 2)).astype(np.float32)


def write_checkpoint(variant: str, path: Path) -> None:
    """A checkpoint in Meta's format with random weights, which both contenders load."""
    from samjax import Sam, convert

    sam = Sam.init(variant)
    convert.write(path, sam.config, sam.params)


def samjax_stages(checkpoint: Path) -> Stages:
    import jax

    from samjax import Prompts, SamPredictor, load, read_image

    sam, photo = load(checkpoint), read_image(PHOTO)
    predictor = SamPredictor(sam)
    state = {}

    def encode():
        state["embedding"] = jax.block_until_ready(sam.encode(photo))

    def decode(count):
        prompts = Prompts.of(points(count))
        return lambda: sam.predict(state["embedding"], prompts)

    def predict():
        predictor.set_image(photo)
        predictor.predict(points(1)[0], np.array([1]))

    return dict(zip(STAGES, (encode, decode(1), decode(64), predict), strict=True))


def torch_stages(checkpoint: Path) -> Stages:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import torch
    from parity.reference import build_reference, import_segment_anything

    from samjax import read_image
    from samjax.convert import describe
    from samjax.transforms import to_pixels

    config, photo = describe(checkpoint).config, read_image(PHOTO)
    reference = build_reference(config)
    reference.load_state_dict(torch.load(checkpoint))
    predictor = import_segment_anything().SamPredictor(reference)
    pixels = torch.from_numpy(to_pixels(photo, config).transpose(2, 0, 1)[None].copy())
    state = {}

    @torch.no_grad()
    def encode():
        state["features"] = reference.image_encoder(pixels)

    def decode(count):
        coords = torch.from_numpy(points(count)) * (config.image_size[1] / 600)
        labels = torch.ones(count, 1, dtype=torch.int)

        @torch.no_grad()
        def run():
            sparse, dense = reference.prompt_encoder((coords, labels), None, None)
            positions = reference.prompt_encoder.get_dense_pe()
            reference.mask_decoder(state["features"], positions, sparse, dense, multimask_output=True)

        return run

    def predict():
        predictor.set_image(photo)
        predictor.predict(points(1)[0], np.array([1]))

    return dict(zip(STAGES, (encode, decode(1), decode(64), predict), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_b")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()

    rows = [
        "| stage | PyTorch s | samjax s | times faster | compile s | PyTorch peak GB | samjax peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    print(f"{options.variant}, float32, median of {options.repeats}; {machine()}")
    print(*rows, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "random.pth"
        apart(write_checkpoint, options.variant, checkpoint)
        with contest({"PyTorch": torch_stages, "samjax": samjax_stages}, checkpoint) as contestants:
            for stage in STAGES:
                result = contestants.run(stage, options.repeats)
                torch, ours = result["PyTorch"], result["samjax"]
                rows.append(
                    f"| {stage} | {torch.seconds:.3f} | {ours.seconds:.3f} | {torch.seconds / ours.seconds:.2f} "
                    f"| {ours.first - ours.seconds:.1f} | {torch.peak / 1e9:.2f} | {ours.peak / 1e9:.2f} |"
                )
                print(rows[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
