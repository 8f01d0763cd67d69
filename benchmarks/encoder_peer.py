"""One peer of `cpu_peers.py`: an encoder in a process of its own, which computes when told to.

    python benchmarks/encoder_peer.py PEER FOLDER
    python benchmarks/encoder_peer.py write_inputs VARIANT FOLDER
    python benchmarks/encoder_peer.py export FOLDER

It reads what `write_inputs` and `export` have put into the folder, answers with a JSON line once it is loaded, and then
to each line `run` with the seconds that one image took, and the memory. At the line `save` its output goes into the
folder.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "samjax" / "assets" / "astronaut.jpg"

Run = Callable[[], Any]  # gives the features of the image as soon as they are there


class Peer(NamedTuple):
    """A way to run the encoder."""

    title: str
    load: Callable[[Path], tuple[Run, Callable[[Any], np.ndarray]]]  # runs, and makes float32 (C, H, W) of the result
    packages: tuple[str, ...]  # that it needs, by their names in a registry; the first is what is measured
    bfloat16: bool = False


def write_inputs(variant: str, folder: Path) -> None:
    """A checkpoint in Meta's format with random weights, all of which matter, and the pixels of a photo."""
    import jax

    from samjax import Sam, convert, read_image
    from samjax.transforms import to_pixels

    sam, rng = Sam.init(variant), np.random.default_rng(0)

    def significant(path: Any, leaf: Any) -> np.ndarray:
        name, leaf = jax.tree_util.keystr(path), np.asarray(leaf)
        scale = 0.2 if "rel_pos" in name or "pos_embed" in name else 0.1 if leaf.ndim == 1 else 0.0
        return leaf + np.float32(scale) * rng.standard_normal(leaf.shape, np.float32)

    convert.write(folder / "random.pth", sam.config, jax.tree_util.tree_map_with_path(significant, sam.params))
    np.save(folder / "pixels.npy", to_pixels(read_image(PHOTO), sam.config))


def export(folder: Path) -> None:
    """Meta's encoder as an ONNX file, and what it gives."""
    import torch

    encoder, pixels = meta_encoder(folder)
    with torch.no_grad():
        np.save(folder / "reference.npy", encoder(pixels)[0].numpy())
        torch.onnx.export(
            encoder, (pixels,), folder / "encoder.onnx", input_names=["pixels"], output_names=["features"], dynamo=True
        )


def meta_encoder(folder: Path) -> tuple[Any, Any]:
    """The encoder of Meta's code, and the pixels as it takes them."""
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from parity.reference import build_reference

    from samjax.convert import describe

    checkpoint = folder / "random.pth"
    model = build_reference(describe(checkpoint).config)
    model.load_state_dict(torch.load(checkpoint))
    pixels = np.load(folder / "pixels.npy").transpose(2, 0, 1)[None]
    return model.image_encoder.eval(), torch.from_numpy(np.ascontiguousarray(pixels))


def load_samjax(folder: Path, dtype: str):
    import jax

    from samjax import load
    from samjax.model import jitted_encode

    sam = load(folder / "random.pth").with_dtype(dtype)
    pixels = jax.numpy.asarray(np.load(folder / "pixels.npy"))

    def run():
        encoded = jitted_encode(sam.config, sam.params, pixels, sam.execution, taps=())
        return jax.block_until_ready(encoded.image)

    return run, lambda features: np.asarray(features.astype("float32")).transpose(2, 0, 1)


def load_torch(folder: Path, *, compiled: bool, bfloat16: bool):
    import torch

    encoder, pixels = meta_encoder(folder)
    if compiled:
        encoder = torch.compile(encoder, dynamic=False)

    def run():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return encoder(pixels)

    return run, lambda features: features[0].float().numpy()


def load_onnxruntime(folder: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "encoder.onnx", providers=["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(np.load(folder / "pixels.npy").transpose(2, 0, 1)[None])
    return lambda: session.run(None, {"pixels": pixels})[0], lambda features: features[0]


def load_openvino(folder: Path, precision: str):
    import openvino

    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(core.read_model(folder / "encoder.onnx"), "CPU", hints).create_infer_request()
    pixels = np.ascontiguousarray(np.load(folder / "pixels.npy").transpose(2, 0, 1)[None])

    def run():
        request.infer({0: pixels}, share_inputs=True)
        return request.get_output_tensor(0).data

    return run, lambda features: np.array(features[0], np.float32)


_META = ("torch", "segment-anything-py")
PEERS: dict[str, Peer] = {
    "samjax": Peer("samjax", lambda folder: load_samjax(folder, "float32"), ("jax",)),
    "eager": Peer("Meta's code, eager", lambda folder: load_torch(folder, compiled=False, bfloat16=False), _META),
    "compile": Peer(
        "Meta's code, torch.compile", lambda folder: load_torch(folder, compiled=True, bfloat16=False), _META
    ),
    "onnxruntime": Peer("ONNX Runtime", load_onnxruntime, ("onnxruntime", "onnx", "onnxscript", *_META)),
    "openvino": Peer(
        "OpenVINO", lambda folder: load_openvino(folder, "f32"), ("openvino", "onnx", "onnxscript", *_META)
    ),
    "samjax-bfloat16": Peer("samjax", lambda folder: load_samjax(folder, "bfloat16"), ("jax",), bfloat16=True),
    "eager-bfloat16": Peer(
        "Meta's code, autocast", lambda folder: load_torch(folder, compiled=False, bfloat16=True), _META, bfloat16=True
    ),
    "compile-bfloat16": Peer(
        "Meta's code, autocast and torch.compile",
        lambda folder: load_torch(folder, compiled=True, bfloat16=True),
        _META,
        bfloat16=True,
    ),
    "openvino-bfloat16": Peer(
        "OpenVINO",
        lambda folder: load_openvino(folder, "bf16"),
        ("openvino", "onnx", "onnxscript", *_META),
        bfloat16=True,
    ),
}


def memory() -> dict[str, int]:
    """Bytes of this process that are resident now, and at most since the last call; what comes next starts anew."""
    status = Path("/proc/self/status").read_text()
    found = {key: re.search(rf"{key}:\s+(\d+) kB", status) for key in ("VmRSS", "VmHWM")}
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (proc(5))
    return {
        name: int(match[1]) * 1024 for name, key in (("resident", "VmRSS"), ("peak", "VmHWM")) if (match := found[key])
    }


def main(name: str, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes where errors go
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    peer = PEERS[name]
    run, as_array = peer.load(folder)
    answer(version=version(peer.packages[0]), python=sys.version.split()[0])
    features = None
    for line in sys.stdin:
        if line.strip() == "save":
            np.save(folder / f"{name}.npy", as_array(features))
            answer()
            continue
        start, cpu = time.perf_counter(), time.process_time()
        features = run()
        answer(seconds=time.perf_counter() - start, cpu_seconds=time.process_time() - cpu, **memory())


if __name__ == "__main__":
    step, *rest = sys.argv[1:]
    if step == "write_inputs":
        write_inputs(rest[0], Path(rest[1]))
    elif step == "export":
        export(Path(rest[0]))
    else:
        main(step, Path(rest[0]))
