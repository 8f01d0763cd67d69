"""Configuration of a training run, as frozen data; a recipe (`samjax.train.configs`) is one `TrainConfig`.

Comments at fields are the help of `samjax train RECIPE --help`. "paper" and "SAM 2" in them name another's value, since
the one shown beside them is the recipe's (`VALUES_OF_OTHERS`).
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from tyro.conf import arg

VALUES_OF_OTHERS = (
    '"paper: X" names the value of the SAM paper (arXiv 2304.02643, Appendix A), "SAM 2: X" that of SAM 2\'s training '
    "code; the default beside it is this recipe's."
)


def _require(section: str, config: Any, fields: str, met: Callable[[Any], bool], wanted: str) -> None:
    """Raises ValueError, by the name that the command line knows, for the first of `fields` that is not `met`."""
    for field in fields.split():
        value = getattr(config, field)
        if not met(value):
            raise ValueError(f"{section}.{field} must be {wanted}, got {value!r}")


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def _is_amount(value: float) -> bool:
    return 0 <= value < math.inf


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf


def _shown_texts(default: str) -> str:
    return f"(default: {default or 'none'})"


def _shown_shares(default: str) -> str:
    return f"(default: {' '.join(f'{float(share):.4g}' for share in default.split())})"


_Texts = Annotated[tuple[str, ...], arg(help_behavior_hint=_shown_texts)]
_Shares = Annotated[tuple[float, ...], arg(help_behavior_hint=_shown_shares)]


def _are_milestones(shares: tuple[float, ...]) -> bool:
    return all(before < share <= 1 for before, share in zip((0, *shares), shares, strict=False))


def _are_patterns(values: tuple[str, ...]) -> bool:
    try:
        return all(re.compile(value) for value in values)
    except re.error:
        return False


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network to train and the weights it starts from."""

    variant: str = "vit_b"  # the network: vit_b, vit_l, vit_h or vit_tiny; with --model.init the checkpoint's own
    image_size: int | None = None  # side of the model's input in pixels; None: the variant's own
    window: int | None = None  # side of the part of the input that training sees at a time; None: all of it
    init: str | None = None  # checkpoint to start from: a known name, a file or a folder; None: random parameters
    mae: str | None = None  # a file with an MAE-pretrained ViT (timm or MAE names) for the image encoder
    aligned_attention: bool = False  # start the decoder's cross-attentions with q = k; training from scratch needs it


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Sources of photos and masks, and their treatment before the model sees them.

    A source is written FORMAT=PATH: sa1b=FOLDER_OR_TAR, coco=IMAGES,ANNOTATIONS.json, labelmap=IMAGES,MAPS
    (classmap: each region of a class is a mask), labelme=FOLDER, pairs=IMAGES,MASKS, work=FOLDER (of `samjax app`).
    Paths are local or gs://, s3://, https://; a comma that is part of a path is written twice.
    """

    train: _Texts = ()  # sources, mixed in proportion to their numbers of photos
    val: _Texts = ()  # sources to validate on, before the first step too; none: no validation
    mix: _Texts = ()  # sources of old data, shown between the new so that the model does not forget them
    mix_share: float = 0.2  # share of the photos that comes from data.mix, in every stretch of the run
    masks_per_image: int = 32  # slots; photos with more masks are sampled from, others padded (paper: at most 64)
    max_cover: float = 0.9  # masks that cover a larger share of the photo are dropped (paper: 0.9)
    min_area: int = 16  # pixels of the model's input; smaller masks are dropped
    flip: float = 0.0  # probability of a horizontal flip (paper: 0)
    scale: tuple[float, float] = (1.0, 1.0)  # large-scale jitter: size relative to fitting the input (paper: 1 1)
    follow: float = 0.0  # probability that a crop is placed where it shows a mask, drawn at random (paper: 0)
    brightness: float = 0.0  # colour jitter: the factor on brightness is uniform in 1 ± this
    contrast: float = 0.0  # colour jitter: the factor on contrast is uniform in 1 ± this
    saturation: float = 0.0  # colour jitter: the factor on saturation is uniform in 1 ± this
    hue: float = 0.0  # colour jitter: the hue is turned by up to ± this, in turns, at most 0.5
    threads: int = 4  # threads that read and decode photos in each process
    workers: int = 0  # processes that read and decode; 0: threads of the main process only
    prefetch: int = 2  # batches that wait on the device
    max_bad_share: float = 0.01  # share of bad records beyond which, and beyond two, the run stops and names the report

    def __post_init__(self) -> None:
        _require("data", self, "masks_per_image prefetch", lambda n: n >= 1, "at least 1")
        _require("data", self, "min_area threads workers", lambda n: n >= 0, "at least 0")
        _require("data", self, "max_bad_share max_cover flip follow", _is_share, "between 0 and 1")
        _require("data", self, "brightness contrast saturation", _is_share, "between 0 and 1")
        _require("data", self, "mix_share", lambda share: 0 < share < 1, "between 0 and 1, without the ends")
        _require("data", self, "hue", lambda turns: 0 <= turns <= 0.5, "between 0 and 0.5 turns")
        _require(
            "data", self, "scale", lambda s: 0 < s[0] <= s[1] < math.inf, "two positive numbers, the smaller first"
        )


@dataclasses.dataclass(frozen=True)
class InteractionConfig:
    """The simulated user, as in the SAM paper."""

    corrections: int = 8  # clicks into the error region, one a pass (paper: 8)
    refinements: int = 2  # passes without a new click: the last, the others at random among the clicks (paper: 2)
    box_probability: float = 0.5  # that the first prompt is the mask's box; otherwise a point on the mask (paper: 0.5)
    box_noise: float = 0.1  # standard deviation of box coordinates, as a share of its width or height (paper: 0.1)
    box_noise_limit: float = 20.0  # most that a coordinate moves, pixels of the model's input (paper: 20)
    box_multimask: bool = True  # a box alone gets three masks, like a single point; otherwise it counts as unambiguous
    carry_gradient: bool = False  # let gradients flow through the logits that are fed back
    # share of the masks with recorded clicks whose first prompt is the first of these, if the crop shows it on the mask
    recorded_share: float = 0.0

    def __post_init__(self) -> None:
        _require("interaction", self, "corrections refinements", lambda n: n >= 0, "at least 0")
        _require("interaction", self, "box_probability recorded_share", _is_share, "between 0 and 1")
        _require("interaction", self, "box_noise box_noise_limit", _is_amount, "at least 0 and finite")

    @property
    def passes(self) -> int:
        """Decoder passes for each mask: 11 in the paper."""
        return 1 + self.corrections + self.refinements


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Focal, dice and the squared error of the predicted IoU, summed with the weights below."""

    focal: float = 20.0  # weight of the focal loss (paper: 20)
    dice: float = 1.0  # weight of the dice loss (paper: 1)
    iou: float = 1.0  # weight of the error of the predicted IoU (paper: 1)
    focal_alpha: float = 0.25  # weight of foreground pixels; background has 1 - alpha
    focal_gamma: float = 2.0  # exponent that makes light of pixels that are right already
    iou_error: Literal["squared", "absolute"] = "squared"  # of the predicted IoU (paper: squared; SAM 2: absolute)
    iou_of: Literal["selected", "all"] = "selected"  # which of three masks teach the IoU head (SAM 2: all)
    resolution: Literal["low", "input"] = "low"  # size at which masks are compared: decoder's or input's (SAM 2: input)
    over_passes: Literal["sum", "mean"] = "sum"  # how the losses of a mask's passes become one
    balanced: float = 0.0  # weight of a class-balanced cross-entropy that gets training from scratch going
    balanced_until: float = 0.2  # share of the run at which its weight, falling linearly, is zero

    def __post_init__(self) -> None:
        _require("loss", self, "focal dice iou focal_gamma balanced", _is_amount, "at least 0 and finite")
        _require("loss", self, "focal_alpha", _is_share, "between 0 and 1")
        _require("loss", self, "balanced_until", _is_positive, "more than 0 and finite")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW, or Muon beside it, with schedules, parameter groups and averaging."""

    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of attention and MLPs (arXiv 2502.16982)
    learning_rate: float = 8e-4  # the peak (paper: 8e-4; ViT-L 4e-4)
    schedule: Literal["constant", "steps", "cosine", "poly"] = "steps"  # after warm-up (paper: steps)
    warmup_steps: int = 250  # linear from zero (paper: 250)
    milestones: _Shares = (60_000 / 90_000, 86_666 / 90_000)  # steps: shares of the run (paper: 2/3 0.963)
    milestone_factor: float = 0.1  # steps: what the rate is multiplied by at each milestone (paper: 0.1)
    final_rate: float = 0.0  # cosine and poly: the share of the peak that they end at
    power: float = 0.9  # poly: the exponent of (1 - t/T)^power
    betas: tuple[float, float] = (0.9, 0.999)  # decay of Adam's moments (paper: 0.9 0.999)
    weight_decay: float = 0.1  # decoupled, times the learning rate (paper: 0.1)
    no_decay: _Texts = ()  # patterns of parameters without weight decay (SAM 2: bias$ scale$)
    layer_decay: float = 1.0  # encoder block i learns at d^(depth - i) of the rate (paper: 0.8; ViT-B 0.6)
    encoder_rate: float = 1.0  # factor on the image encoder's rate (SAM 2: 0.6)
    # pull of what is trained to where it started (L2-SP, arXiv 1802.01483), decoupled, times the learning rate. Adam's
    # steps are about as large as the rate, so no parameter gets much farther than 1 / anchor. Keeps a copy of the start
    anchor: float = 0.0
    # patterns (regular expressions) of parameters that are not trained, e.g. ^image_encoder/; `samjax info CHECKPOINT
    # --parameters` lists names
    frozen: _Texts = ()
    clip_norm: float | None = None  # largest norm of the global gradient (SAM 2: 0.1); None: any
    ema: float | None = None  # decay of the averaged parameters, reached as (1 + t) / (10 + t); None: no average

    def __post_init__(self) -> None:
        positive = "learning_rate milestone_factor power layer_decay encoder_rate"
        _require("optim", self, positive, _is_positive, "more than 0 and finite")
        _require("optim", self, "warmup_steps", lambda n: n >= 0, "at least 0")
        _require("optim", self, "milestones", _are_milestones, "ascending shares of the run, above 0 and up to 1")
        _require("optim", self, "final_rate", _is_share, "between 0 and 1")
        _require("optim", self, "betas", lambda both: all(0 <= beta < 1 for beta in both), "at least 0 and below 1")
        _require("optim", self, "weight_decay anchor", _is_amount, "at least 0 and finite")
        wanted = f"less than 1 / optim.learning_rate, {1 / self.learning_rate:g}: one step would go beyond the start"
        _require("optim", self, "anchor", lambda anchor: anchor * self.learning_rate < 1, wanted)
        _require("optim", self, "clip_norm", lambda n: n is None or _is_positive(n), "more than 0 and finite, or None")
        _require("optim", self, "ema", lambda decay: decay is None or 0 < decay < 1, "between 0 and 1, or None")
        _require("optim", self, "no_decay frozen", _are_patterns, "regular expressions")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Measurements of a validation beside those on data.val."""

    # sources of old data, which the model could segment before: clicks and boxes are measured on them at each
    # validation, too, as retain/iou_1 and so on. The best checkpoint is chosen by val/iou alone
    retain: _Texts = ()
    retain_images: int = 200  # photos of them, at even distances through all sources

    def __post_init__(self) -> None:
        _require("eval", self, "retain_images", lambda n: n >= 1, "at least 1")


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """The choice of what is trained: a mode or several, and their options; an option of no mode that is chosen is an
    error. `optim.frozen` then freezes a part of what they would train."""

    # full: all of it. decoder: the mask decoder. last_blocks: the last blocks of the image encoder, and all that comes
    # after them. patterns: parameters by name. lora: low-rank changes of matrices. parser: singular values of the neck.
    # adapter: a bottleneck beside each MLP of the encoder. patch_embed: the patches, of photos with more channels. hq:
    # HQ-SAM's token, which joins no other mode. Several are joined by "+": lora+decoder. auto: one that suits the
    # number of photos
    mode: str = "full"
    prompt_encoder: bool = False  # decoder, last_blocks: train the prompt encoder as well; others warn
    last: int = 2  # last_blocks: how many blocks; the neck and the mask decoder are trained with them
    patterns: _Texts = ()  # patterns: regular expressions, found anywhere in the names of parameters that are trained
    rank: int = 4  # lora: of the changes; that of the smallest changed kernel at most
    # lora: a change is A·B times this over the rank. None: as much as the rank, so that it is A·B itself
    alpha: float | None = None
    targets: tuple[str, ...] = ("q", "v")  # lora: what is changed, of q, k, v, qkv (the three as one), proj and mlp
    where: tuple[str, ...] = ("encoder",)  # lora: of encoder, decoder
    late: int | None = None  # lora: only in so many blocks of the encoder, the last ones; None: in all
    matrices: _Texts = ()  # parser: patterns of kernels whose singular values are trained beside the neck's
    adapter: int = 64  # adapter: channels of the bottleneck (AdaptFormer: 64)
    channels: int = 4  # patch_embed: of the photos, TIFF files with as many bands; red, green and blue come first

    def __post_init__(self) -> None:
        _require("tune", self, "last rank adapter", lambda n: n >= 1, "at least 1")
        _require("tune", self, "channels", lambda n: n >= 3, "at least 3")
        _require("tune", self, "late", lambda n: n is None or n >= 1, "at least 1, or None")
        _require("tune", self, "alpha", lambda n: n is None or _is_positive(n), "more than 0 and finite, or None")
        _require("tune", self, "patterns matrices", _are_patterns, "regular expressions")


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """Features of photos that are computed once and kept: those before the first layer that is trained."""

    # memory, disk: an error where that cannot be. auto: in memory, where it can be, changes nothing that is learnt and
    # takes no more than an eighth of the machine's memory
    features: Literal["auto", "off", "memory", "disk"] = "auto"
    # that they are kept in, those of validation apart, which are not rounded; None: run.compute_dtype
    dtype: Literal["float32", "bfloat16"] | None = None
    # fixed augmentations of each photo, seen in turn from epoch to epoch, where the recipe lets features be kept; 0: a
    # new one each time
    views: int = 0
    # GB that features may take; on disk all in the folder, of which those used least recently give way
    budget_gb: float = 4.0
    folder: str | None = None  # disk: where, shared by runs from the same weights. None: SAMJAX_CACHE/features

    def __post_init__(self) -> None:
        _require("cache", self, "views", lambda n: n >= 0, "at least 0")
        _require("cache", self, "budget_gb", _is_positive, "more than 0 and finite")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Length, size and rhythm of a run."""

    steps: int = 90_000  # updates in all; a finished run can be given more (paper: 90,000; ViT-B and ViT-L 180,000)
    # wall-clock minutes after which the run ends, whatever its step; the schedules, which are laid over run.steps, then
    # follow the time. None: the run ends at run.steps
    minutes: float | None = None
    batch: int = 256  # photos of a step, on all devices together (paper: 256; ViT-B and ViT-L 128)
    accumulate: int = 1  # pieces that a step's batch is computed in, one after the other
    seed: int = 0  # of everything random: parameters, order of photos, augmentation, prompts
    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # what the network computes in; parameters stay float32
    remat: bool = True  # recompute encoder blocks for the gradient; saves memory on accelerators, not on CPU
    # photos encoded together, on CPU by each device; None: one on CPU, all on accelerators
    images_together: int | None = None
    masks_together: int | None = None  # masks of a photo that go through the passes together; None: likewise
    drop_path: float = 0.0  # of the encoder's last block, falling linearly to 0 at the first (paper: 0.4; ViT-B 0.6)
    dropout: float = 0.0  # rate on the residual branches of the decoder's tokens
    # on CPU: devices to simulate, over which photos are spread, as a decoder's products are small for several cores;
    # None: one for each core, as far as the batch divides and memory goes
    cpu_devices: int | None = None
    data_axis: int = -1  # devices over which photos are spread; one of the three axes may be -1: what is left
    fsdp_axis: int = 1  # devices over which photos and parameters are spread
    tensor_axis: int = 1  # devices over which each matrix product is spread
    log_every: int = 10  # steps between lines of metrics.jsonl, each a mean over them
    validate_every: int = 1000  # steps between validations; there is one before the first step and after the last, too
    validate_minutes: float | None = None  # minutes between validations, instead of run.validate_every
    validation_images: int = 200  # photos of a validation, the first ones of --data.val
    picture_every: int = 1000  # steps between pictures of predictions for validation photos
    checkpoint_every: int = 1000  # steps between checkpoints; each validation and the end leave one, too
    keep_last: int = 2  # newest checkpoints that are kept, beside the best one
    keep_best: bool = True  # keep the checkpoint with the highest val/iou
    tensorboard: bool = True  # write event files for TensorBoard
    wandb: str | None = None  # project of Weights & Biases to log to as well

    def __post_init__(self) -> None:
        counts = "steps batch accumulate log_every validate_every picture_every checkpoint_every validation_images"
        _require("run", self, f"{counts} keep_last", lambda n: n >= 1, "at least 1")
        _require("run", self, "seed", lambda n: n >= 0, "at least 0")
        _require(
            "run",
            self,
            "images_together masks_together cpu_devices",
            lambda n: n is None or n >= 1,
            "at least 1, or None",
        )
        _require("run", self, "minutes validate_minutes", lambda n: n is None or _is_positive(n), "above 0, or None")
        _require("run", self, "drop_path dropout", lambda rate: 0 <= rate < 1, "at least 0 and below 1")
        wanted = f"a multiple of run.accumulate, {self.accumulate}"
        _require("run", self, "batch", lambda n: n % self.accumulate == 0, wanted)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A recipe."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    interaction: InteractionConfig = InteractionConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()
    tune: TuneConfig = TuneConfig()
    cache: CacheConfig = CacheConfig()
    run: RunConfig = RunConfig()
