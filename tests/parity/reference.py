"""The PyTorch reference as an oracle: Meta's package, with random weights in which every parameter matters."""

import importlib
import importlib.util
import sys
import types

import numpy as np

from samjax.config import SamConfig


def import_segment_anything() -> types.ModuleType:
    """Meta's package. Where torchvision is missing, the few functions that it uses stand in while it is imported.

    Not for longer: other libraries take a module of that name for the real one.
    """
    if "segment_anything" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("segment_anything")
    stand_ins = torchvision_stand_ins()
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("segment_anything")
    finally:
        for name in stand_ins:
            del sys.modules[name]


def torchvision_stand_ins() -> dict[str, types.ModuleType]:
    from PIL import Image

    modules = {
        name: types.ModuleType(name)
        for name in (
            "torchvision",
            "torchvision.ops",
            "torchvision.ops.boxes",
            "torchvision.transforms",
            "torchvision.transforms.functional",
        )
    }
    functional = modules["torchvision.transforms.functional"]
    functional.to_pil_image = Image.fromarray
    functional.resize = lambda picture, size: picture.resize(size[::-1], Image.Resampling.BILINEAR)
    boxes = modules["torchvision.ops.boxes"]
    boxes.box_area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    boxes.batched_nms = _batched_nms
    return modules


def _batched_nms(boxes, scores, categories, iou_threshold):
    """Greedy NMS within each category, as torchvision defines it: the threshold is a double."""
    import torch

    order = torch.argsort(scores, descending=True, stable=True).tolist()
    kept: list[int] = []
    for i in order:
        low = torch.maximum(boxes[i, :2], boxes[kept, :2])
        high = torch.minimum(boxes[i, 2:], boxes[kept, 2:])
        intersection = (high - low).clamp(min=0).prod(1)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        iou = intersection / (area[i] + area[kept] - intersection)
        if not ((iou.double() > iou_threshold) & (categories[kept] == categories[i])).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def build_reference(config: SamConfig, seed: int = 0, device: str = "cpu"):
    """Meta's `Sam` in the shape of `config`, square images only, with random weights and NON-zero position tables.

    Norm scales, biases and embeddings are random too, so that no parameter can be swapped or dropped unseen.
    """
    import torch

    from samjax.convert import verify

    import_segment_anything()
    torch.manual_seed(seed)
    with torch.device(device):
        sam = verify.build_reference(config).to(device)  # what Meta's code makes on the CPU whatever it is told
    return shake(sam, seed, device).eval()


def shake(model, seed: int = 0, device: str = "cpu"):
    """A torch model whose position tables, norms and biases are random, not what they are initialised to."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, device=device)
            if "rel_pos" in name or "pos_embed" in name:
                parameter.copy_(0.2 * noise)
            elif parameter.ndim == 1:
                parameter.add_(0.1 * noise)
    return model


def layout(model) -> dict[str, tuple[tuple[str, ...], tuple[int, ...] | None]]:
    """By a torch `Sam`'s parameter names: our path, and the axes that permute its layout into ours.

    The rules are written independently of `samjax.convert`, from the kinds of the modules.
    """
    import torch

    modules = dict(model.named_modules())
    found = {}
    for name, tensor in model.state_dict().items():
        *path, leaf = name.split(".")
        module, axes = modules[".".join(path)], None
        if leaf == "weight":
            if isinstance(module, torch.nn.LayerNorm) or type(module).__name__ == "LayerNorm2d":
                leaf = "scale"
            elif isinstance(module, torch.nn.Embedding):
                leaf = "embedding"
            elif isinstance(module, torch.nn.ConvTranspose2d):
                leaf, axes = "kernel", (0, 2, 3, 1)
            else:
                leaf, axes = "kernel", (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0)
        found[name] = ((*path, leaf), axes)
    return found


def params_from_reference(model) -> dict:
    """samjax parameters of a torch `Sam`."""
    params: dict = {}
    state = model.state_dict()
    for name, (path, axes) in layout(model).items():
        value = state[name].detach().numpy()
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = np.ascontiguousarray(value if axes is None else value.transpose(axes))
    return params


def load_params(model, params: dict) -> None:
    """Puts samjax parameters into a torch `Sam`."""
    import torch

    state = {}
    for name, (path, axes) in layout(model).items():
        value = params
        for part in path:
            value = value[part]
        state[name] = torch.tensor(np.asarray(value if axes is None else value.transpose(np.argsort(axes))))
    model.load_state_dict(state, strict=True)
