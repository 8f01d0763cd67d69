"""A training step beside the same step as a PyTorch loop over Meta's modules: seconds, and peak memory.

    python benchmarks/training.py --source sa1b=FOLDER [--way lora] [--variant vit_b] [--images 2] [--masks 4]

Needs torch and segment-anything-py (`make parity` installs them). Both start from the same random weights and train on
the same photos and masks in float32: the image is encoded once, each mask gets 11 passes with simulated prompts, losses
are 20 · focal + dice + squared IoU error of the best mask at the decoder's resolution, and AdamW updates everything.
The PyTorch loop is what one writes first: eager, a loop over photos, all masks of a photo together, one backward that
remembers everything. It differs in what costs nothing: its first prompts are points only, both refinements come last,
and its focal loss averages over the padding too. samjax rematerialises attention, as always, and no blocks.

Ways (`samjax train --tune.mode`): `full`; `lora`, of rank 4 on queries and values, in PyTorch a module in place of each
`qkv`; `decoder`, with the prompt encoder, where both compute the features of a photo once and keep them.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contest import Stages, apart, contest, machine

RATE, DECAY, PASSES = 1e-5, 0.1, 11


def write_checkpoint(variant: str, path: Path) -> None:
    from samjax import Sam, convert

    sam = Sam.init(variant)
    convert.write(path, sam.config, sam.params)


def read_batch(variant: str, spec: str, images: int, masks: int, folder: Path):
    from samjax import VARIANTS
    from samjax.readers.sources import open_sources
    from samjax.train.config import DataConfig
    from samjax.train.data.pipeline import Pipeline
    from samjax.train.data.report import BadRecords

    report = BadRecords(folder / "bad.jsonl")
    data = DataConfig(masks_per_image=masks, threads=0)
    return Pipeline(data, open_sources((spec,)), VARIANTS[variant], batch=images, seed=0, report=report).batch_at(0)


def samjax_stages(checkpoint: Path, batch, way: str) -> Stages:
    import samjax
    from samjax.convert import describe
    from samjax.sharding import described, make_mesh
    from samjax.train.config import CacheConfig, OptimConfig, RunConfig, TrainConfig, TuneConfig
    from samjax.train.cores import use_cores
    from samjax.train.optim import make_optimizer
    from samjax.train.state import init_state
    from samjax.train.step import make_step

    config = TrainConfig(
        tune=TuneConfig(way, prompt_encoder=way == "decoder"),
        cache=CacheConfig(features="memory" if way == "decoder" else "off"),
        optim=OptimConfig(learning_rate=RATE, schedule="constant", warmup_steps=0, weight_decay=DECAY),
        run=RunConfig(batch=len(batch.image), remat=False),  # attention is rematerialised anyway
    )
    if said := use_cores(config, lambda: describe(checkpoint).config):  # as `samjax train` does
        print(f"samjax: {said}", file=sys.stderr)
    sam = samjax.load(checkpoint)
    mesh = make_mesh()
    print(f"samjax: on {described(mesh)}", file=sys.stderr)
    optimizer = make_optimizer(config.optim, sam.config, 100)
    held = [init_state(config, sam.config, sam.params, optimizer, mesh)]
    if way == "decoder":
        batch = feature_cache(config, sam.config, mesh, held[0], batch).attach(batch, keep_images=False)
    step_function = make_step(config, sam.config, optimizer, mesh)
    del sam

    def step():
        held[0], metrics = step_function(held[0], batch)
        print(f"samjax: loss {float(metrics['loss']):.4f}", file=sys.stderr)

    return {"step": step}


def feature_cache(config, sam, mesh, state, batch):
    """A cache for the features of a batch's photos.

    Raises:
        ValueError: these features cannot be kept.
    """
    from samjax.train.cached.batches import FeatureCache
    from samjax.train.cached.plan import make_plan
    from samjax.train.trainable import make_trainable

    plan, reason = make_plan(config, sam, len(batch.image), 0)
    assert plan is not None, reason
    params = make_trainable(config, sam).merge(state.frozen, state.params)
    return FeatureCache(plan, config, sam, mesh, params, Path())


def torch_stages(checkpoint: Path, batch, way: str) -> Stages:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import torch
    from parity.reference import build_reference
    from torch.nn import functional

    from samjax.convert import describe
    from samjax.train.batch import unpack_cells
    from samjax.transforms import PIXEL_MEAN, PIXEL_STD

    config = describe(checkpoint).config
    model = build_reference(config).train()
    model.load_state_dict(torch.load(checkpoint))

    class LowRank(torch.nn.Module):
        """A projection to queries, keys and values with changes of rank 4 for the first and the last."""

        def __init__(self, qkv):
            super().__init__()
            self.qkv, width = qkv, qkv.in_features
            self.down = torch.nn.ModuleList(torch.nn.Linear(width, 4, bias=False) for _ in range(2))
            up = [torch.nn.Linear(4, width, bias=False) for _ in range(2)]
            for layer in up:
                torch.nn.init.zeros_(layer.weight)
            self.up = torch.nn.ModuleList(up)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            q, v = (part + up(down(x)) for part, down, up in zip((q, v), self.down, self.up, strict=True))
            return torch.cat((q, k, v), -1)

    if way == "lora":
        model.requires_grad_(False)
        for block in model.image_encoder.blocks:
            block.attn.qkv = LowRank(block.attn.qkv)
            block.attn.qkv.down.requires_grad_(True)
            block.attn.qkv.up.requires_grad_(True)
    elif way == "decoder":
        model.image_encoder.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    print(f"PyTorch: trains {sum(parameter.numel() for parameter in trained):,} numbers", file=sys.stderr)
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    kept: dict[int, Any] = {}
    ratio = config.image_encoder.stride // 4
    rng = np.random.default_rng(0)

    def loss_of(logits, iou, target):
        """(N, M, h, w) logits and shares of foreground (N, 1, h, w): the best mask's loss."""
        probability = logits.sigmoid()
        missed, false = functional.softplus(-logits), functional.softplus(logits)
        focal = 0.25 * target * (1 - probability) ** 2 * missed + 0.75 * (1 - target) * probability**2 * false
        overlap, size = (probability * target).sum((2, 3)), probability.sum((2, 3)) + target.sum((2, 3))
        mask_loss = 20 * focal.mean((2, 3)) + 1 - (2 * overlap + 1) / (size + 1)
        binary = logits.detach() > 0
        both = torch.where(binary, target, 0).sum((2, 3))
        true = both / (target.sum((2, 3)) + torch.where(binary, 1 - target, 0).sum((2, 3))).clamp(min=1e-6)
        best = mask_loss.argmin(1, keepdim=True)
        return (mask_loss.gather(1, best) + (iou.gather(1, best) - true.gather(1, best)) ** 2).sum()

    def click(mask, truth):
        """A pixel (x, y) where a mask is wrong, and its label."""
        wrong = np.flatnonzero(mask != truth)
        where = rng.choice(wrong) if len(wrong) else rng.choice(np.flatnonzero(~truth))
        y, x = divmod(int(where), truth.shape[1])
        return (x, y), int(truth[y, x])

    def step():
        optimizer.zero_grad()
        total: Any = 0.0
        rows = zip(batch.image, batch.size, batch.cells, batch.valid, strict=True)
        for row, (photo, size, cells, valid) in enumerate(rows):
            features = kept.get(row)
            if features is None:
                pixels = (photo.astype(np.float32) - PIXEL_MEAN) / PIXEL_STD
                pixels[size[0] :] = pixels[:, size[1] :] = 0
                features = model.image_encoder(torch.from_numpy(pixels).permute(2, 0, 1)[None])
            if way == "decoder":
                kept[row] = features
            truth = unpack_cells(cells[valid], ratio)
            shares = functional.avg_pool2d(torch.from_numpy(truth.astype(np.float32))[:, None], ratio)
            points, labels = [], []
            logits: Any = None
            for number in range(PASSES):
                if number == 0:
                    chosen = [(divmod(int(rng.choice(np.flatnonzero(mask))), mask.shape[1])[::-1], 1) for mask in truth]
                elif number < PASSES - 2:
                    seen = logits.detach().repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)[:, 0] > 0
                    chosen = [click(*pair) for pair in zip(seen.numpy(), truth, strict=True)]
                else:
                    chosen = None
                if chosen:
                    points.append([xy for xy, _ in chosen])
                    labels.append([label for _, label in chosen])
                prompt = torch.tensor(points).transpose(0, 1).float(), torch.tensor(labels).T
                carried = None if logits is None else logits.detach()
                sparse, dense = model.prompt_encoder(prompt, None, carried)
                logits, iou = model.mask_decoder(
                    features, model.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=number == 0
                )
                total = total + loss_of(logits, iou, shares)
                best = iou.argmax(1)[:, None, None, None].expand(-1, 1, *logits.shape[2:])
                logits = logits.gather(1, best)
        total = total / int(batch.valid.sum())
        total.backward()
        optimizer.step()
        print(f"PyTorch: loss {float(total.detach()):.4f}", file=sys.stderr)

    return {"step": step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="as in data.train: FORMAT=PATH")
    parser.add_argument("--way", default="full", choices=("full", "lora", "decoder"), help="what is tuned")
    parser.add_argument("--variant", default="vit_b")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--masks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "random.pth"
        apart(write_checkpoint, arguments.variant, checkpoint)
        batch = apart(read_batch, arguments.variant, arguments.source, arguments.images, arguments.masks, folder)
        masks = int(batch.valid.sum())
        print(f"{arguments.variant}, {arguments.way}, {arguments.images} photo(s), {masks} masks, {PASSES} passes,")
        print(f"float32, median of {arguments.steps}; {machine()}", flush=True)
        stages = {"PyTorch": torch_stages, "samjax": samjax_stages}
        with contest(stages, checkpoint, batch, arguments.way) as contestants:
            results = contestants.run("step", arguments.steps)
    print("\n| | seconds a step | peak GB | first step s |\n|---|---|---|---|")
    for contender, result in results.items():
        print(f"| {contender} | {result.seconds:.1f} | {result.peak / 1e9:.2f} | {result.first:.1f} |")


if __name__ == "__main__":
    main()
