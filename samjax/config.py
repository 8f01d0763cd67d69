"""The configuration of a SAM as frozen data; the variants are rows of one table.

Two kinds of configuration are kept apart: `SamConfig` says WHICH function is computed (it decides parameter names and
shapes), `samjax.execution.Execution` says HOW it is computed and changes the answer by no more than rounding.
"""

import dataclasses
import importlib
import warnings
from typing import Any, Final, Literal, Protocol, runtime_checkable

# Of a model with HQ-SAM's token, the masks to answer with: SAM's logits plus the token's, the token's alone, or SAM's
# own, bit for bit those of the model without the token.
HqMasks = Literal["sum", "only", "off"]
_LATER = "later"  # in the metadata of fields that configurations of 0.2 have not


def later(default: Any) -> Any:
    """A field that did not exist when checkpoints were first written. It is written and shown only where it is not at
    its default, so that older programs read what they can compute, and keys made of a configuration stay the same."""
    return dataclasses.field(default=default, metadata={_LATER: True})


def written_fields(config: Any) -> dict[str, Any]:
    """A configuration as `dataclasses.asdict` gives it, without fields of `later` that are at their default."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if _LATER in field.metadata and value == field.default:
            continue
        found[field.name] = written_fields(value) if dataclasses.is_dataclass(value) else value
    return found


class _Shown:
    """A `repr` without fields of `later` that are at their default."""

    def __repr__(self) -> str:
        fields: Any = dataclasses.fields(self)  # type: ignore[arg-type]  # all that inherit it are dataclasses
        shown = [
            f"{field.name}={value!r}"
            for field in fields
            if (value := getattr(self, field.name)) != field.default or _LATER not in field.metadata
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


class PromptLabel:
    """Kinds of prompt tokens. Labels are int32 on the device, so these are plain numbers and no `Enum`."""

    ABSENT: Final = -2  # an unused slot: zero, masked out of every attention
    NOT_A_POINT: Final = -1  # the reference's padding point: has no position, is attended
    BACKGROUND: Final = 0
    FOREGROUND: Final = 1
    BOX_MIN: Final = 2  # a box's upper left corner
    BOX_MAX: Final = 3  # and its lower right


@runtime_checkable
class EncoderConfig(Protocol):
    """What the configuration of an image encoder promises, of whatever family (`samjax.nn.encoders`).

    It is a frozen dataclass. Sizes are (height, width) in pixels of the model's input.
    """

    @property
    def image_size(self) -> tuple[int, int]:
        """Of the padded model input."""
        ...

    @property
    def stride(self) -> int:
        """Pixels along a side of a cell of the grid."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the features: `image_size` over `stride`."""
        ...

    @property
    def alignment(self) -> int:
        """Pixels: the encoder sees a part of its input as it sees the whole where the part's place and sides are
        multiples of this."""
        ...

    @property
    def depth(self) -> int:
        """Blocks, each of two branches that are added to its input and that training may drop."""
        ...

    def with_image_size(self, image_size: tuple[int, int]) -> Any:
        """The same encoder for another input. Raises ValueError if it cannot have that size."""
        ...


@dataclasses.dataclass(frozen=True, repr=False)
class ViTConfig(_Shown):
    """A plain ViT with windowed and global attention (ViTDet, arXiv 2203.16527; SAM paper, section 3)."""

    width: int = 768  # token channels
    depth: int = 12  # transformer blocks
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)  # blocks that attend globally; the others attend within windows
    image_size: tuple[int, int] = (1024, 1024)  # (height, width) of the padded model input, pixels
    patch_size: int = 16  # pixels
    window_size: int = 14  # tokens
    mlp_ratio: int = 4
    adapter: int = later(0)  # channels of the bottleneck beside each MLP (AdaptFormer, arXiv 2205.13535); 0: none
    channels: int = later(3)  # of the pixels: red, green and blue, then whatever else a photo has

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.patch_size, self.window_size, self.mlp_ratio) < 1:
            raise ValueError(f"all sizes of the image encoder must be positive, got {self}")
        if any(side % self.patch_size or side <= 0 for side in self.image_size):
            raise ValueError(f"image_size must be multiples of the patch size {self.patch_size}, got {self.image_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}")
        if any(not 0 <= block < self.depth for block in self.global_blocks):
            raise ValueError(f"global_blocks {self.global_blocks} must lie in 0..{self.depth - 1}")
        if self.adapter < 0:
            raise ValueError(f"adapter is the width of a bottleneck, or 0 for none, got {self.adapter}")
        if self.channels < 3:
            raise ValueError(f"channels are red, green, blue and others, so at least 3, got {self.channels}")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of image tokens."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def stride(self) -> int:
        """The patch: there is a token for each."""
        return self.patch_size

    @property
    def alignment(self) -> int:
        """Pixels along a side of an attention window."""
        return self.patch_size * self.window_size

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.width // self.heads

    @property
    def early_output(self) -> tuple[str, int] | None:
        """What HQ-SAM takes from inside the encoder: the tap of the first global block, and its channels."""
        return (f"blocks/{min(self.global_blocks)}", self.width) if self.global_blocks else None

    def with_image_size(self, image_size: tuple[int, int]) -> "ViTConfig":
        """The same ViT for another input, multiples of the patch."""
        return dataclasses.replace(self, image_size=image_size)


# Of all families. Checkpoints tell them apart by a field `family`, a string of its own in all but ViT's.
ENCODERS: tuple[type, ...] = (ViTConfig,)


@dataclasses.dataclass(frozen=True, repr=False)
class DecoderConfig(_Shown):
    """The two-way transformer and its heads (SAM paper, Appendix A)."""

    depth: int = 2  # two-way layers
    heads: int = 8
    mlp_dim: int = 2048
    downsample: int = 2  # cross-attentions work at width / downsample
    multimask_outputs: int = 3  # masks of an ambiguous prompt; one more token serves unambiguous prompts
    iou_head_dim: int = 256
    iou_head_depth: int = 3
    hq: bool = later(False)  # HQ-SAM's token, its MLP and its fusion of features (arXiv 2306.01567) beside SAM's own

    def __post_init__(self) -> None:
        if min(value for value in dataclasses.astuple(self) if not isinstance(value, bool)) < 1:
            raise ValueError(f"all sizes of the decoder must be positive, got {self}")


@dataclasses.dataclass(frozen=True)
class SamConfig:
    """Everything that decides SAM's parameter names, shapes and mathematics."""

    image_encoder: EncoderConfig = ViTConfig()
    mask_decoder: DecoderConfig = DecoderConfig()
    width: int = 256  # channels of the image embedding, of prompt tokens and of the decoder
    mask_channels: int = 16  # channels of the mask prompt's convolutions

    def __post_init__(self) -> None:
        heads, downsample = self.mask_decoder.heads, self.mask_decoder.downsample
        if self.width < 8 or self.width % 8 or self.width % downsample or self.width // downsample % heads:
            raise ValueError(
                f"width {self.width} must be a multiple of 8, and the decoder's width / {downsample} a multiple of its "
                f"{heads} heads"
            )
        if self.mask_channels < 4 or self.mask_channels % 4:
            raise ValueError(f"mask_channels must be a multiple of 4, got {self.mask_channels}")
        if self.mask_decoder.hq and getattr(self.image_encoder, "early_output", None) is None:
            raise ValueError(
                "HQ-SAM's token takes the output of the first global block of a plain ViT, which this image encoder "
                f"lacks: {self.image_encoder}"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        return self.image_encoder.image_size

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_encoder.grid

    @property
    def channels(self) -> int:
        """Of the pixels that the model takes: three, if its encoder does not say."""
        return getattr(self.image_encoder, "channels", 3)

    @property
    def mask_size(self) -> tuple[int, int]:
        """(height, width) of low-resolution mask logits and of mask prompts: four times the grid."""
        return 4 * self.grid[0], 4 * self.grid[1]

    @property
    def mask_tokens(self) -> int:
        return self.mask_decoder.multimask_outputs + 1

    @property
    def output_tokens(self) -> int:
        """Tokens of the decoder before the prompt's: of the IoU, of each mask, and HQ-SAM's."""
        return 1 + self.mask_tokens + self.mask_decoder.hq

    @property
    def multimask_answers(self) -> int:
        """Masks that answer an ambiguous prompt by default. HQ-SAM's token refines the most confident one, and it is
        the only one."""
        return 1 if self.mask_decoder.hq else self.mask_decoder.multimask_outputs

    @property
    def decoder_taps(self) -> tuple[str, ...]:
        """Outputs from inside the image encoder that the decoder takes beside the features; `encode` gives them."""
        if not self.mask_decoder.hq:
            return ()
        return (self.image_encoder.early_output[0],)  # type: ignore[attr-defined]  # `__post_init__` has seen to it

    def with_hq(self, hq: bool = True) -> "SamConfig":
        """The same network with HQ-SAM's token, or without. Raises ValueError if the encoder does not suit it."""
        if hq == self.mask_decoder.hq:
            return self
        return dataclasses.replace(self, mask_decoder=dataclasses.replace(self.mask_decoder, hq=hq))

    @property
    def variant(self) -> str:
        """The variant's name, whatever the image size, with HQ-SAM's token or without; "custom" for a configuration
        that no row of the table has."""
        for name, known in VARIANTS.items():
            try:
                if self.with_hq(False) == known.with_image_size(self.image_size):
                    return name
            except ValueError:  # a size that the variant cannot have
                continue
        return "custom"

    def with_image_size(self, image_size: tuple[int, int] | int) -> "SamConfig":
        """The same network for another input size (see `samjax.Sam.with_image_size` for its parameters)."""
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        return dataclasses.replace(self, image_encoder=self.image_encoder.with_image_size(image_size))


VARIANTS: dict[str, SamConfig] = {
    "vit_b": SamConfig(),
    "vit_l": SamConfig(ViTConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23))),
    "vit_h": SamConfig(ViTConfig(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31))),
    "vit_tiny": SamConfig(
        ViTConfig(
            width=192,
            depth=8,
            heads=3,
            global_blocks=(3, 7),
            image_size=(256, 256),
            patch_size=8,
            window_size=8,
        ),
        DecoderConfig(mlp_dim=512, iou_head_dim=128),
        width=128,
    ),
}


@dataclasses.dataclass(frozen=True)
class MaskThresholds:
    """Thresholds by which masks of a grid of points are kept; they depend on how sure a model is of itself.

    The defaults are Meta's, made for large models. Those of a small one travel with its checkpoint.
    """

    pred_iou_thresh: float = 0.88  # masks with a predicted IoU of no more than this are dropped
    stability_score_thresh: float = 0.95  # masks less stable than this are dropped
    stability_score_offset: float = 1.0  # shift of the logit threshold in the stability score


def __getattr__(name: str) -> Any:
    """What stood here in 0.1, with a warning."""
    if name == "ImageEncoderConfig":
        warnings.warn("samjax.config.ImageEncoderConfig is now samjax.config.ViTConfig", FutureWarning, 2)
        return ViTConfig
    if name in ("Execution", "Dtype"):
        warnings.warn(f"samjax.config.{name} is now samjax.execution.{name}", FutureWarning, 2)
        return getattr(importlib.import_module("samjax.execution"), name)
    raise AttributeError(f"module 'samjax.config' has no attribute {name!r}")
