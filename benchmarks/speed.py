"""samjax beside Meta's PyTorch code: encoder, decoder and a whole prediction, in one run.

    python benchmarks/speed.py [--variant vit_b] [--repeats 5] [--out table.md]

Needs torch and segment-anything-py (`make parity` installs them). Each contender lives in a process of its own, so
that peak memory is its own; they take turns, so that a noisy machine disturbs both alike. Times are medians of warm
repeats; compile time and peak memory stand apart. Peak memory is the largest resident set during a stage, weights,
libraries and what earlier stages keep included. samjax's encoder stage includes resizing the photo, PyTorch's does not.
"""

import argparse
import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

PHOTO = Path(__file__).parents[1] / "samjax" / "assets" / "coffee.jpg"
STAGES = ("encoder", "decoder, 1 prompt", "decoder, 64 prompts", "whole predict")


def points(count: int) -> np.ndarray:
    """(count, 1, 2) points in the 600 x 400 photo."""
    return np.random.default_rng(0).uniform((0, 0), (600, 400), (count, 1, 2)).astype(np.float32)


def write_checkpoint(variant: str, path: Path) -> None:
    """A checkpoint in Meta's format with random weights, which both contenders load."""
    from samjax import Sam, convert

    sam = Sam.init(variant)
    convert.write(path, sam.config, sam.params)


def samjax_stages(checkpoint: Path) -> dict[str, Callable[[], object]]:
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


def torch_stages(checkpoint: Path) -> dict[str, Callable[[], object]]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import torch
    from parity.reference import build_reference, import_segment_anything
    from samjax.convert import describe

    from samjax import read_image
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


def contender(pipe, stages: Callable[[Path], dict[str, Callable[[], object]]], checkpoint: Path) -> None:
    """Runs stages as asked, answering (seconds, peak resident bytes)."""
    functions = stages(checkpoint)
    pipe.send(None)
    for stage in iter(pipe.recv, None):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (proc(5))
        start = time.perf_counter()
        functions[stage]()
        seconds = time.perf_counter() - start
        status = Path("/proc/self/status").read_text()
        pipe.send((seconds, int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024))


def answer(name: str, pipe) -> tuple[float, int]:
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit(f"{name} stopped; its error is above") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_b")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    folder = tempfile.TemporaryDirectory()
    checkpoint = Path(folder.name) / "random.pth"
    writer = context.Process(target=write_checkpoint, args=(options.variant, checkpoint))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise SystemExit("no checkpoint could be written")
    pipes = {}
    for name, stages in (("PyTorch", torch_stages), ("samjax", samjax_stages)):
        pipes[name], theirs = context.Pipe()
        context.Process(target=contender, args=(theirs, stages, checkpoint), daemon=True).start()
        theirs.close()  # so that a contender that dies is noticed
        answer(name, pipes[name])

    def ask(name: str, stage: str) -> tuple[float, int]:
        pipes[name].send(stage)
        return answer(name, pipes[name])

    rows = [
        "| stage | PyTorch s | samjax s | times faster | compile s | PyTorch peak GB | samjax peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "jax"))
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"{options.variant}, float32, median of {options.repeats}; {machine}, {versions}")
    print(*rows, sep="\n", flush=True)
    for stage in STAGES:
        first = {name: ask(name, stage)[0] for name in pipes}
        results = {name: [] for name in pipes}
        for _ in range(options.repeats):
            for name in pipes:
                results[name].append(ask(name, stage))
        seconds = {name: statistics.median(time for time, _ in runs) for name, runs in results.items()}
        peak = {name: max(size for _, size in runs) / 1e9 for name, runs in results.items()}
        rows.append(
            f"| {stage} | {seconds['PyTorch']:.3f} | {seconds['samjax']:.3f} "
            f"| {seconds['PyTorch'] / seconds['samjax']:.2f} | {first['samjax'] - seconds['samjax']:.1f} "
            f"| {peak['PyTorch']:.2f} | {peak['samjax']:.2f} |"
        )
        print(rows[-1], flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    folder.cleanup()
    if options.out:
        options.out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
