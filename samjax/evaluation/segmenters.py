"""Models to be evaluated: samjax on its devices, and whatever has the interface of `segment_anything.SamPredictor`."""

import dataclasses
import hashlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from samjax import transforms
from samjax.config import PromptLabel, SamConfig, ViTConfig
from samjax.embeddings import model_hash
from samjax.errors import describe_error
from samjax.evaluation.protocol import Answer, Prompt
from samjax.sam import Sam
from samjax.sharding import batch_sharding, shardings
from samjax.types import TOKEN_BUCKETS, Embedding, Prompts, bucket


class SamSegmenter:
    """samjax: photos are encoded together, and the prompts of all of them are answered together.

    Numbers of prompts and of points are bucketed and padding changes no answer, so few programs compile. With a mesh,
    photos, their prompts and the masks' upscaling are spread over its "data" and "fsdp" axes, and the parameters by
    `samjax.sharding.RULES`.
    """

    def __init__(self, sam: Sam, mesh: jax.sharding.Mesh | None = None, images_together: int | None = None) -> None:
        """`images_together`: photos an encoding; by default what `sam.execution` computes at once, on each device.

        Raises ValueError if the mesh does not divide `images_together`.
        """
        devices = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
        together = images_together or devices * (sam.execution.images_per_step or 1)
        if together < 1 or together % devices:
            raise ValueError(
                f"images_together is {together}, which {devices} devices cannot share evenly; it must be a multiple"
            )
        self.images_together = together
        self._devices = devices
        self._sharding = None if mesh is None else batch_sharding(mesh)
        self.sam = sam
        if mesh is not None:
            placed = shardings(sam.params, mesh, sam.config.image_encoder)
            self.sam = dataclasses.replace(sam, params=jax.device_put(sam.params, placed))
        self._embeddings: Embedding | None = None
        self._sizes: list[transforms.Size] = []

    def look(self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> None:
        """Encodes photos; prompts are about them until the next look."""
        self._sizes = [photo.shape[:2] for photo in photos]
        missing = -len(photos) % self.images_together if self._sharding is not None else 0  # one program for any number
        self._embeddings = self.sam.encode_batch([*photos, *[photos[-1]] * missing], self._sharding)

    def ask(self, prompts: Sequence[Sequence[Prompt]], *, multimask: bool) -> list[list[Answer]]:
        """Answers to the prompts of each photo. Masks are made at the photo's size, `Answer.logits` are LOW-RES.

        Raises ValueError before the first look, and where the photos are not as many as were looked at.
        """
        if self._embeddings is None or len(prompts) != len(self._sizes):
            raise ValueError(f"{len(self._sizes)} photo(s) were looked at, prompts came for {len(prompts)}")
        if not any(prompts):
            return [[] for _ in prompts]
        count = self._embeddings.features.shape[0]
        batch = Prompts.batch([*map(_prompts, prompts), *[_prompts(())] * (count - len(prompts))])
        if self._sharding is not None:
            batch = jax.device_put(batch, self._sharding)
        prediction = jax.tree.map(np.asarray, self.sam.predict_batch(self._embeddings, batch, multimask=multimask))
        answers = []
        for photo, size in enumerate(self._sizes):
            own = prediction[photo]
            masks = self._at_size(own.logits, size)
            answers.append([Answer(*fields) for fields in zip(masks, own.iou, own.logits, strict=True)])
        return answers

    def _at_size(self, logits: Float32[np.ndarray, "N M h w"], size: transforms.Size) -> Bool[np.ndarray, "N M H W"]:
        """Masks of one photo: all devices share them, each computes as many at once as `execution` says."""
        share = -(-logits.shape[0] * logits.shape[1] // self._devices)
        each = min(bucket(share, (1, 4, 16)), self.sam.execution.masks_per_step or 1)
        together = self._devices * each
        return transforms.upscale_masks(logits, size, self.sam.config, together=together, sharding=self._sharding)

    def full_logits(self, photo: int, logits: Float32[np.ndarray, "M h w"]) -> Float32[np.ndarray, "M H W"]:
        """An answer's logits at the size of photo number `photo` of the last look."""
        return transforms.upscale_masks(logits, self._sizes[photo], self.sam.config, threshold=None)


def _prompts(prompts: Sequence[Prompt]) -> Prompts:
    """One photo's; for none, a row that only pads."""
    if not prompts:
        width = TOKEN_BUCKETS[0]
        absent = np.full((1, width), PromptLabel.ABSENT, np.int32)
        return Prompts(np.zeros((1, width, 2), np.float32), absent, np.zeros(1, bool))
    return Prompts.of(
        [prompt.points for prompt in prompts],
        [prompt.labels for prompt in prompts],
        [prompt.box for prompt in prompts],
        [prompt.logits for prompt in prompts],
    )


class PredictorSegmenter:
    """Whatever answers `set_image(rgb)` and `predict(point_coords, point_labels, box, mask_input, multimask_output)` as
    Meta's SamPredictor does: one photo, one prompt at a time. samjax.SamPredictor is one too."""

    images_together = 1

    def __init__(self, predictor: Any, source: Path | None = None) -> None:
        """`source`: the file that the predictor comes from. Raises TypeError for an object without the two methods."""
        missing = [name for name in ("set_image", "predict") if not callable(getattr(predictor, name, None))]
        if missing:
            raise TypeError(
                f"a predictor has the methods set_image and predict of segment_anything.SamPredictor; "
                f"{type(predictor).__name__} lacks {' and '.join(missing)}"
            )
        self.predictor, self.source = predictor, source
        self._photos: list[np.ndarray] = []
        self._at: int | None = None  # which photo the predictor has

    def fingerprint(self) -> dict[str, str]:
        """Tells its results from another predictor's: a SHA-256 of its source and one of its weights, if they are known
        as a `samjax.Sam`'s or a PyTorch module's, `predictor.model`."""
        found = {}
        if self.source is not None:
            found["source"] = hashlib.sha256(self.source.read_bytes()).hexdigest()[:16]
        model = getattr(self.predictor, "model", None)
        if isinstance(sam := getattr(model, "sam", None), Sam):
            found["sha256"] = model_hash(sam)[:16]
        elif callable(getattr(model, "state_dict", None)):
            state: Any = model
            found["sha256"] = _state_hash(state.state_dict())[:16]
        return found

    def look(self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> None:
        """Takes up photos; the predictor is given the first, and each further one when it is asked about."""
        self._photos, self._at = list(photos), None
        if photos:
            self._turn_to(0)

    def _turn_to(self, photo: int) -> None:
        if self._at != photo:
            self.predictor.set_image(self._photos[photo])
            self._at = photo

    def ask(self, prompts: Sequence[Sequence[Prompt]], *, multimask: bool) -> list[list[Answer]]:
        """Answers to the prompts of each photo.

        Raises ValueError if the photos are not as many as were looked at, and where the predictor's masks do not
        have the photo's size.
        """
        if len(prompts) != len(self._photos):
            raise ValueError(f"{len(self._photos)} photo(s) were looked at, prompts came for {len(prompts)}")
        answers: list[list[Answer]] = []
        for photo, own in enumerate(prompts):
            if own:
                self._turn_to(photo)
            answers.append([self._answer(self._photos[photo].shape[:2], prompt, multimask) for prompt in own])
        return answers

    def _answer(self, size: transforms.Size, prompt: Prompt, multimask: bool) -> Answer:
        masks, iou, logits = self.predictor.predict(
            point_coords=prompt.points,
            point_labels=prompt.labels,
            box=prompt.box,
            mask_input=None if prompt.logits is None else prompt.logits[None],
            multimask_output=multimask,
        )
        masks = np.asarray(masks)
        if masks.ndim != 3 or masks.shape[1:] != size:
            raise ValueError(
                f"{type(self.predictor).__name__}.predict gave masks of shape {masks.shape} for a photo of {size}; "
                "expected (M, H, W) at the photo's size"
            )
        return Answer(_above_0(masks), np.asarray(iou, np.float32), np.asarray(logits, np.float32))

    def full_logits(self, photo: int, logits: Float32[np.ndarray, "M h w"]) -> Float32[np.ndarray, "M H W"]:
        """An answer's logits at the size of photo number `photo` of the last look.

        As Meta's `postprocess_masks`: logits cover the model's input, into which the photo fits, with padding below and
        to the right. The input's height is the predictor's `model.image_encoder.img_size`, or else four times the
        logits'.
        """
        height, width = logits.shape[-2:]
        encoder = getattr(getattr(self.predictor, "model", None), "image_encoder", None)
        ratio = getattr(encoder, "img_size", 4 * height) // height
        config = SamConfig(ViTConfig(image_size=(ratio * height, ratio * width), patch_size=4 * ratio))
        return transforms.upscale_masks(logits, self._photos[photo].shape[:2], config, threshold=None)


def _above_0(masks: Bool[np.ndarray, "M H W"] | Float[np.ndarray, "M H W"]) -> Bool[np.ndarray, "M H W"]:
    return masks if masks.dtype == bool else masks > 0


def _state_hash(state: Mapping[str, Any]) -> str:
    """A hash of PyTorch tensors by name, of any dtype: float64 holds what they hold, and NumPy knows no bfloat16."""
    checksum = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.detach().cpu().double().contiguous().numpy())
    return checksum.hexdigest()


def from_spec(spec: str) -> PredictorSegmenter:
    """A predictor by name, "module:factory": the factory is called without arguments and returns an object like
    `segment_anything.SamPredictor`. Modules are looked for in the current folder too.

    Raises ValueError if the name is not of that form, and where importing the module or calling the factory fails,
    whatever the error, or gives no predictor.
    """
    name, _, factory = spec.partition(":")
    if not name or not factory:
        raise ValueError(f"a predictor is named module:factory, such as my_models:build_predictor, got {spec!r}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise ValueError(f"the predictor's module {name!r} cannot be imported: {describe_error(error)}") from error
        build = getattr(module, factory, None)
        if not callable(build):
            raise ValueError(f"module {name!r} has no function {factory!r}; it must return a predictor")
        source = getattr(module, "__file__", None)
        try:
            return PredictorSegmenter(build(), Path(source) if source else None)
        except Exception as error:
            raise ValueError(
                f"no predictor comes from {spec}: {describe_error(error)}; it must be a function without arguments "
                "that returns what has the interface of segment_anything.SamPredictor"
            ) from error
    finally:
        sys.path.remove(here)
