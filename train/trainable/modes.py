"""The modes of tuning (`tune.mode`): one table, which all that differs from one to another is looked up in."""

import dataclasses
import difflib
import warnings
from collections.abc import Callable
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.nn.encoders import family_of
from samjax.types import Params

from ..config import TrainConfig, TuneConfig
from . import fields
from .freezing import check_patterns, parameter_names
from .lora import low_rank
from .named import named
from .patterns import Patterns
from .protocol import Trainable
from .singular_values import singular_values


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way to tune that a recipe can name."""

    name: str
    help: str  # what it trains, in a line
    way: Callable[[TrainConfig, SamConfig], Trainable]
    options: tuple[str, ...] = ()  # fields of `TuneConfig` that it reads
    # Of a network and the options: the same network with what the mode adds to its configuration. Parameters that the
    # new one has in addition start as they are declared, drawn from the run's seed.
    network: Callable[[TuneConfig, SamConfig], SamConfig] | None = None
    # Of a parameter's name, its value in the checkpoint and the fresh one of another shape: the one to start from.
    grow: Callable[[str, Any, Any], Any] | None = None


def _full(config: TrainConfig, sam: SamConfig) -> Trainable:
    return Patterns()


def _decoder(config: TrainConfig, sam: SamConfig) -> Trainable:
    return named(parameter_names(abstract_params(sam)), *_heads(config.tune))


def _last_blocks(config: TrainConfig, sam: SamConfig) -> Trainable:
    encoder, last = sam.image_encoder, config.tune.last
    if last > encoder.depth:
        raise ValueError(f"tune.last is {last}, and the image encoder has {encoder.depth} blocks")
    layer, names = family_of(encoder).layer, parameter_names(abstract_params(sam))
    late = (
        f"^{name}$"
        for name in names
        if name.startswith("image_encoder/")
        and layer(encoder, name.removeprefix("image_encoder/")) > encoder.depth - last
    )
    return named(names, *late, *_heads(config.tune))


def _patterns(config: TrainConfig, sam: SamConfig) -> Trainable:
    patterns, names = config.tune.patterns, parameter_names(abstract_params(sam))
    if not patterns:
        raise ValueError("tune.mode patterns trains what fits tune.patterns, and there are none")
    check_patterns("tune.patterns", patterns, names)
    way = named(names, *patterns)
    if not way.names:
        raise ValueError(f"tune.patterns: {patterns} fit constants only, and nothing that could be trained")
    return way


def _heads(tune: TuneConfig) -> tuple[str, ...]:
    return ("^mask_decoder/", "^prompt_encoder/") if tune.prompt_encoder else ("^mask_decoder/",)


MODES: tuple[Mode, ...] = (
    Mode("full", "every parameter", _full),
    Mode("decoder", "the mask decoder", _decoder, options=("prompt_encoder",)),
    Mode(
        "last_blocks",
        "the last blocks of the image encoder, its neck and the mask decoder",
        _last_blocks,
        options=("last", "prompt_encoder"),
    ),
    Mode("patterns", "parameters by name", _patterns, options=("patterns",)),
    Mode(
        "lora",
        "low-rank changes of attention and MLP (LoRA)",
        low_rank,
        options=("rank", "alpha", "targets", "where", "late"),
    ),
    Mode("parser", "the singular values of the neck (SAM-PARSER)", singular_values, options=("matrices",)),
    Mode(
        "adapter",
        "a bottleneck beside each MLP of the image encoder",
        fields.adapters,
        options=("adapter",),
        network=fields.with_adapters,
    ),
    Mode(
        "patch_embed",
        "the patch embedding, of photos with more channels",
        fields.patches,
        options=("channels",),
        network=fields.with_channels,
        grow=fields.grown_patches,
    ),
    Mode("hq", "HQ-SAM's token, its MLP and its fusion of features", fields.hq_token, network=fields.with_hq_token),
)


# Fields that need no mode which reads them: recipes set them, and their mode may be changed.
_PROMPTS = "prompt_encoder"
_OF_RECIPES = ("mode", _PROMPTS)


def chosen_modes(tune: TuneConfig) -> tuple[Mode, ...]:
    """The rows of the modes that are joined by "+".

    Raises ValueError for an unknown mode, one named twice, one that cannot be joined, and an option of none of them.
    """
    known = {mode.name: mode for mode in MODES}
    names = [name.strip() for name in tune.mode.split("+")]
    if names == ["auto"]:
        raise ValueError("tune.mode auto is decided by a run's data: call samjax.train.automatic.settled first")
    if "auto" in names:
        raise ValueError(f"tune.mode {tune.mode}: auto chooses modes by itself, and joins no other")
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else "."
            helps = {**{mode.name: mode.help for mode in MODES}, "auto": "what suits the number of photos; alone"}
            rows = "".join(f"\n  {row:<12} {text}" for row, text in helps.items())
            raise ValueError(f'tune.mode: there is no {name!r}{hint} Modes, to be joined by "+", train:{rows}')
        if names.count(name) > 1:
            raise ValueError(f"tune.mode {tune.mode} names {name} twice")
    if "full" in names and len(names) > 1:
        others = ", ".join(name for name in names if name != "full")
        raise ValueError(f"tune.mode {tune.mode}: full trains every parameter as it is, and leaves none to {others}")
    modes = tuple(known[name] for name in names)
    read = {option for mode in modes for option in mode.options}
    for field in dataclasses.fields(tune):
        if field.name not in {*_OF_RECIPES, *read} and getattr(tune, field.name) != field.default:
            users = " and ".join(mode.name for mode in MODES if field.name in mode.options)
            raise ValueError(f"tune.{field.name} is an option of {users}, and tune.mode is {tune.mode}")
    return modes


def warn_of_unread(tune: TuneConfig) -> None:
    """Warns if `tune.prompt_encoder` is set and no mode reads it, which is no error: recipes set it."""
    if tune.prompt_encoder and not any(mode.name == "full" or _PROMPTS in mode.options for mode in chosen_modes(tune)):
        readers = " and ".join(mode.name for mode in MODES if _PROMPTS in mode.options)
        warnings.warn(
            f"tune.prompt_encoder is an option of {readers}, and does nothing with tune.mode {tune.mode}", stacklevel=2
        )


def grown_network(tune: TuneConfig, sam: SamConfig) -> SamConfig:
    """A network with what the modes add to its configuration; raises as `chosen_modes`."""
    for mode in chosen_modes(tune):
        if mode.network is not None:
            sam = mode.network(tune, sam)
    return sam


def grown_params(tune: TuneConfig, sam: SamConfig, params: Params, fresh: Callable[[], Params]) -> Params:
    """Parameters of `sam`, the grown network: those of the network before, and fresh ones where it has none.

    Args:
        tune: the modes.
        sam: the network that is trained.
        params: of the network before it grew.
        fresh: gives freshly initialised parameters of `sam`; asked for only if there are others.

    Raises:
        ValueError: a parameter has another shape, and no mode makes the one to start from.
    """
    shapes: dict[str, Any] = flatten_dict(abstract_params(sam), sep="/")
    had: dict[str, Any] = flatten_dict(params, sep="/")
    if {name: leaf.shape for name, leaf in had.items()} == {name: leaf.shape for name, leaf in shapes.items()}:
        return params
    new: dict[str, Any] = flatten_dict(fresh(), sep="/")
    grow = [mode.grow for mode in chosen_modes(tune) if mode.grow is not None]
    grown = {}
    for name, shape in shapes.items():
        old = had.get(name, new[name])
        if old.shape != shape.shape:
            if not grow:
                raise ValueError(f"{name} has shape {old.shape} in model.init, and the network wants {shape.shape}")
            old = grow[0](name, old, new[name])
        grown[name] = old
    return unflatten_dict(grown, sep="/")
