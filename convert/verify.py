"""Runs a converted model and Meta's own beside each other on a photo, stage by stage. Needs PyTorch."""

# pyright: reportMissingImports=false

import functools
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import UInt8

from samjax import transforms
from samjax.checkpoint import lazy, plain_vit
from samjax.config import SamConfig
from samjax.sam import Sam
from samjax.types import Prompts

from . import read
from .mapping import rename
from .matching import expected_entries


class Stage(NamedTuple):
    """A stage of the computation and its distance from the reference."""

    name: str
    error: float
    allowed: float  # by float32 rounding

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


def verify(sam: Sam, reference: Any, image: UInt8[np.ndarray, "H W 3"]) -> list[Stage]:
    """Measures the error of every stage against the reference.

    Args:
        sam: our model with the converted parameters.
        reference: a `segment_anything.modeling.Sam` with the parameters of the source.
        image: an RGB photo; both models are asked for the object at its centre, by a point, then by a box around it.

    Returns:
        The stages in the order of computation. Errors are relative in the L2 norm, ‖ours − reference‖ /
        ‖reference‖, except for the final masks: the share of pixels that differ.
    """
    import torch
    from segment_anything import SamPredictor
    from segment_anything.utils.transforms import ResizeLongestSide

    height, width = image.shape[:2]
    predictor = SamPredictor(reference)
    resize = ResizeLongestSide(reference.image_encoder.img_size)
    stages = []
    with torch.no_grad():
        resized = torch.as_tensor(resize.apply_image(image)).permute(2, 0, 1)[None].contiguous()
        pixels = reference.preprocess(resized.to(reference.device))
        error = _error(transforms.to_pixels(image, sam.config), _channels_last(pixels)[0])
        stages.append(Stage("pixels", error, 1e-6))
        predictor.set_image(image)
        embedding = sam.encode(image)
        error = _error(embedding.features, _channels_last(predictor.features)[0])
        stages.append(Stage("image embedding", error, 1e-5))
        point = np.array([[width / 2, height / 2]], np.float32)
        box = np.array([width / 4, height / 4, 3 * width / 4, 3 * height / 4], np.float32)
        for name, ours, theirs in (
            ("point", Prompts.of(points=[point], labels=[[1]]), {"point_coords": point, "point_labels": np.array([1])}),
            ("box", Prompts.of(boxes=[box]), {"box": box}),
        ):
            prediction = sam.predict(embedding, ours)
            masks, iou, logits = predictor.predict(**theirs, multimask_output=True)
            differing = sam.masks(prediction, embedding)[0] != masks
            stages += [
                Stage(f"{name}: mask logits", _error(prediction.logits[0], logits), 1e-4),
                Stage(f"{name}: predicted IoU", _error(prediction.iou[0], iou), 1e-4),
                Stage(f"{name}: mask pixels that differ", float(np.mean(differing)), 1e-5),
            ]
    return stages


def require_reference() -> None:
    """Raises ValueError if PyTorch or Meta's package cannot be imported."""
    try:
        import segment_anything  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"verifying runs Meta's code, which is not installed ({error}); "
            "pip install torch torchvision segment-anything-py"
        ) from error


def load_reference(path: Path, *, drop: Sequence[str] = ()) -> Any:
    """Loads the parameters of a checkpoint of any format into Meta's torch `Sam`.

    A plain state dict in PyTorch's format is read by PyTorch itself, so that our reader is verified too.

    Raises:
        CheckpointError: as `convert.read`.
        ValueError: the model does not take square images.
    """
    import torch

    with warnings.catch_warnings(action="ignore"):  # the conversion has warned already
        config, params = read(path, drop=drop)
    reference = build_reference(config)
    if path.suffix in (".pth", ".pt", ".bin"):
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except (pickle.UnpicklingError, RuntimeError):  # objects beside the state dict, which our reader skips
            state = None
        if isinstance(state, dict) and "image_encoder.pos_embed" in state:
            reference.load_state_dict({name: state[name] for name in reference.state_dict()}, strict=True)
            return reference
    leaves = {name: lazy(array) for name, array in flatten_dict(params, sep="/").items()}
    named = rename(leaves, expected_entries(config), target="meta")
    tensors = {name: torch.from_numpy(leaf.read().astype(np.float32)) for name, leaf in named.items()}
    reference.load_state_dict(tensors, strict=True)
    return reference


def build_reference(config: SamConfig) -> Any:
    """Builds Meta's torch `Sam` in the shape of `config`, in evaluation mode, with initial weights.

    Raises:
        ValueError: the configuration does not take square images, or is of a model that Meta's code has not.
    """
    import torch
    from segment_anything import modeling

    encoder, decoder = plain_vit(config, who="the reference"), config.mask_decoder
    if decoder.hq or encoder.adapter or encoder.channels != 3:
        what = "HQ-SAM's token" if decoder.hq else "an adapter" if encoder.adapter else "channels beside RGB"
        raise ValueError(f"Meta's code, which verifying runs, has no form of a model with {what}")
    if encoder.image_size[0] != encoder.image_size[1]:
        raise ValueError(f"the reference takes square images only, this model takes {encoder.image_size}")
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=encoder.depth,
            embed_dim=encoder.width,
            img_size=encoder.image_size[0],
            mlp_ratio=encoder.mlp_ratio,
            norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=encoder.heads,
            patch_size=encoder.patch_size,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=encoder.global_blocks,
            window_size=encoder.window_size,
            out_chans=config.width,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=config.width,
            image_embedding_size=config.grid,
            input_image_size=config.image_size,
            mask_in_chans=config.mask_channels,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=decoder.multimask_outputs,
            transformer=modeling.TwoWayTransformer(
                depth=decoder.depth,
                embedding_dim=config.width,
                mlp_dim=decoder.mlp_dim,
                num_heads=decoder.heads,
            ),
            transformer_dim=config.width,
            iou_head_depth=decoder.iou_head_depth,
            iou_head_hidden_dim=decoder.iou_head_dim,
        ),
        pixel_mean=transforms.PIXEL_MEAN.tolist(),
        pixel_std=transforms.PIXEL_STD.tolist(),
    ).eval()


def _channels_last(tensor: Any) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).float().cpu().numpy()


def _error(ours: Any, reference: np.ndarray) -> float:
    ours = np.asarray(ours, np.float32)
    return float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))
