"""Bytes that a compiled TPU program moves to and from the chip's memory (HBM), ahead of time and without a TPU.

    python benchmarks/tpu_bytes.py encode --variant vit_b --batch 4 --topology v5e:2x2
    python benchmarks/tpu_bytes.py step --variant vit_b --batch 256 --topology v5e:16x16

Needs libtpu. Every instruction of the program's text counts with its operands and results, unless they lie on chip;
the body of a loop as often as it runs, of a condition the branch that moves most. A kernel counts with each array that
it is given or gives, once: those of samjax fetch no block twice, because what a program needs again stays on chip.
"""

import argparse
import collections
import dataclasses
import importlib.metadata
import math
import os
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from samjax import VARIANTS, Embedding, Execution, Prompts, SamConfig
from samjax.amg import program
from samjax.amg.program import Limits, Region
from samjax.model import abstract_params, jitted_decode, jitted_encode
from samjax.ops import attention

HBM = {"v5e": 819, "v5p": 2765, "v6e": 1640}  # GB/s of a chip, as published (cloud.google.com/tpu/docs)
POINTS = 64  # of a grid that are decoded together

_BITS = {"pred": 8, "bf16": 16}  # of element types whose name does not end in their bits
_ARRAY = re.compile(r"\b(pred|bf16|[a-z]+\d+)\[([\d,]*)\](\{[^}]*\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
# What moves nothing by itself: names for what is there, and the ends of copies that count where they start.
_FREE = {
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all", "opt-barrier", "iota"),
    *("copy-done", "slice-done", "async-done", "dynamic-slice-done", "while", "conditional", "call"),
}


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    shape: str
    kind: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of the operands, each once."""
        return list(dict.fromkeys(re.findall(r"%([\w.\-]+)", re.split(r"\), |\)$", self.rest)[0])))

    @property
    def source(self) -> str:
        """The end of the name that JAX gave the operation, numbers left out."""
        name = re.search(r'op_name="([^"]*)"', self.rest)
        return re.sub(r"\d+", "#", name[1])[-90:] if name else "?"


def bytes_moved(text: str, *, unbounded: int | None = None) -> collections.Counter[tuple[str, str]]:
    """Bytes by (kind, source) of instruction, for a program's text as XLA prints it.

    Args:
        text: of the compiled program.
        unbounded: how often a loop runs whose bound is an input.

    Raises:
        ValueError: a loop's condition has no bound that can be read, and `unbounded` does not tell.
    """
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            current = start[2]
            computations[current] = []
            entry = current if start[1] else entry
        elif current and (match := _INSTRUCTION.match(line)):
            computations[current].append(Instruction(*match.groups()))

    def named(rest: str, role: str) -> str:
        found = re.search(rf"{role}=%?([\w.\-]+)", rest)
        assert found is not None, rest
        return found[1]

    def count(name: str) -> collections.Counter[tuple[str, str]]:
        shapes = {instruction.name: instruction.shape for instruction in computations[name]}
        moved: collections.Counter[tuple[str, str]] = collections.Counter()
        for instruction in computations[name]:
            if instruction.kind == "while":
                times = _trips(instruction, computations[named(instruction.rest, "condition")], unbounded)
                for key, number in count(named(instruction.rest, "body")).items():
                    moved[key] += times * number
            elif instruction.kind == "call":
                moved += count(named(instruction.rest, "to_apply"))
            elif instruction.kind == "conditional":
                branches = [
                    x.strip(" %") for found in _BRANCHES.findall(instruction.rest) for x in ",".join(found).split(",")
                ]
                moved += max((count(branch) for branch in branches if branch), key=lambda branch: branch.total())
            elif instruction.kind not in _FREE:
                moved[instruction.kind, instruction.source] += _moved(instruction, shapes)
        return moved

    return count(entry)


def _trips(loop: Instruction, condition: list[Instruction], unbounded: int | None) -> int:
    """How often a loop runs: TPU programs do not say, but its condition compares with the bound."""
    bounds = [int(number) for i in condition for number in re.findall(r"^(\d+)\)", i.rest) if i.kind == "constant"]
    if not bounds and unbounded is None:
        raise ValueError(f"the condition of loop {loop.name} has no bound: {loop.source}")
    return max(bounds, default=unbounded or 0)


def _moved(instruction: Instruction, shapes: dict[str, str]) -> int:
    operands = sum(_in_memory(shapes.get(operand, "")) for operand in instruction.operands)
    if not instruction.kind.endswith("-start"):
        return _in_memory(instruction.shape) + operands
    # The result of what is only started is a tuple with the operands in it.
    arrays = _ARRAY.finditer(instruction.shape)
    if instruction.kind == "copy-start":
        return _in_memory(next(arrays)[0]) + operands
    _, result, *_ = arrays
    read = _in_memory(result[0].replace("S(1)", "")) if operands else 0  # no more of the operand than the slice
    return read + _in_memory(result[0])


def _in_memory(shape: str) -> int:
    """Bytes of the arrays of a shape that lie in HBM; S(1) is memory on chip."""
    total = 0
    for kind, sides, layout in _ARRAY.findall(shape):
        if "S(1)" not in layout:
            bits = _BITS.get(kind) or int(re.sub(r"\D*(\d+)$", r"\1", kind))
            total += math.prod(int(side) for side in sides.split(",") if side) * bits // 8
    return total


def on(sharding: Any, tree: Any) -> Any:
    """Shapes of a tree, placed."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def lower(args: argparse.Namespace, config: SamConfig, devices: Any) -> tuple[Any, float]:
    """The program that was asked for, and by what its bytes are divided."""
    how = Execution.for_backend("tpu", args.dtype)
    if args.attention:
        form = getattr(attention, args.attention)()
        how = dataclasses.replace(how, attention=form, window_attention=form)
    if args.program == "step":
        return _step(args, config, devices), 1
    chip = NamedSharding(Mesh(np.array([devices[0]]), ("chip",)), P())
    params = on(chip, abstract_params(config))
    if args.program == "encode":
        pixels = on(chip, jax.ShapeDtypeStruct((args.batch, *config.image_size, 3), jnp.float32))
        return jitted_encode.lower(config, params, pixels, how), args.batch
    sizes = jnp.zeros(2, jnp.int32)
    features = jax.ShapeDtypeStruct((*config.grid, config.width), how.dtype)
    embedding = on(chip, jax.eval_shape(lambda x: Embedding(x, sizes, sizes), features))
    if args.program == "decode":
        prompts = on(chip, Prompts.of([[[1, 2]]] * args.batch))
        return jitted_decode.lower(config, params, embedding, prompts, how, multimask=True), 1
    box = jnp.zeros(4)
    region = on(chip, Region(jnp.zeros((args.batch, 2)), jnp.int32(0), box, box))
    limits = on(chip, Limits(*[jnp.float32(0)] * len(Limits._fields)))
    frame = on(chip, program.frame_of((1200, 1800), config))
    given = config, params, embedding, region, frame, limits, how
    return program.jitted_judge.lower(*given, points_per_batch=POINTS, nms="box"), 1


def _step(args: argparse.Namespace, config: SamConfig, devices: Any) -> Any:
    """A training step with 64 masks a photo and eleven passes; parameters in sixteen parts where the chips allow."""
    from samjax.sharding import batch_sharding, make_mesh
    from samjax.train.batch import Batch
    from samjax.train.config import OptimConfig, RunConfig, TrainConfig
    from samjax.train.optim import make_optimizer
    from samjax.train.state import abstract_state
    from samjax.train.step import make_step

    mesh = make_mesh(-1, 16 if len(devices) % 16 == 0 else 1, 1, devices=devices)
    run = RunConfig(batch=args.batch, compute_dtype=args.dtype, remat=args.remat, masks_together=args.masks_together)
    recipe = TrainConfig(optim=OptimConfig(layer_decay=0.8, weight_decay=0.1), run=run)

    def rows(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((args.batch, *shape), dtype, sharding=batch_sharding(mesh))

    batch = Batch(
        rows((*config.image_size, 3), jnp.uint8),
        rows((2,), jnp.int32),
        rows((64, *config.mask_size), jnp.uint16),
        rows((64,), bool),
        rows((), jnp.uint32),
        rows((), jnp.int32),
    )
    optimizer = make_optimizer(recipe.optim, config, recipe.run.steps)
    step: Any = make_step(recipe, config, optimizer, mesh)
    return step.lower(abstract_state(recipe, config, optimizer, mesh), batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("program", choices=("encode", "decode", "find", "step"))
    parser.add_argument("--variant", default="vit_b", choices=list(VARIANTS))
    parser.add_argument("--batch", type=int, default=4, help="photos (encode, step), prompts (decode), points (find)")
    parser.add_argument("--topology", default="v5e:2x2", help="v5e:2x2, v5p:2x2x1, v6e:16x16, ...")
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--attention", help="a form of samjax.ops.attention, instead of that of the table")
    parser.add_argument("--remat", action="store_true", help="of the encoder, in a step")
    parser.add_argument("--masks-together", type=int, help="of a photo that go through a step's passes together")
    parser.add_argument("--top", type=int, default=8, help="largest consumers to list")
    parser.add_argument("--text", help="a file for the program's text")
    args = parser.parse_args()
    topology = topologies.get_topology_desc(platform="tpu", topology_name=args.topology)
    start = time.perf_counter()
    lowered, share = lower(args, VARIANTS[args.variant], topology.devices)
    compiled = lowered.compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if args.text:
        Path(args.text).write_text(text)
    # The loop over points in batches ends where there are no more.
    moved = bytes_moved(text, unbounded=args.batch // POINTS if args.program == "find" else None)
    for (kind, source), number in moved.most_common(args.top):
        print(f"{number / share / 1e9:9.3f} GB  {kind:14s} {source}")
    total = moved.total() / share / 1e9
    rate = HBM[args.topology.partition(":")[0]]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "libtpu"))
    unit = "photo" if args.program == "encode" else "chip"
    print(
        f"{args.program} of {args.variant} x {args.batch} on {args.topology}: {total:.2f} GB a {unit}, "
        f"{total / rate * 1e3:.1f} ms of HBM time; temporaries {memory.temp_size_in_bytes / 2**30:.2f} GiB; "
        f"compiled in {time.perf_counter() - start:.0f} s ({versions})"
    )


if __name__ == "__main__":
    main()
