"""Checkpoints, and what was tuned of one, as the command describes them."""

import dataclasses
from pathlib import Path
from typing import Any

from samjax.names import printable


def print_description(path: str | Path, description: Any) -> None:
    """Prints a `samjax.checkpoint.Description`."""
    from samjax.config import MaskThresholds
    from samjax.nn.encoders import family_of

    encoder = description.config.image_encoder
    rows: dict[str, Any] = {
        "format": description.format,
        "variant": description.variant,
        "image size": "{} x {}".format(*encoder.image_size),
        "encoder": family_of(encoder).describe(encoder),
        **({"decoder": "with HQ-SAM's token"} if description.config.mask_decoder.hq else {}),
        "parameters": f"{description.parameters:,}",
        "dtype": ", ".join(description.dtypes),
        "checksum": description.checksum,
    }
    rows |= {
        name: ", ".join(value)
        for name, value in (
            ("read from", [description.place] if description.place else []),
            ("skipped", description.skipped),
            ("dropped", description.dropped),
            ("warning", description.warnings),
        )
        if value
    }
    if description.thresholds != MaskThresholds():
        suited = dataclasses.asdict(description.thresholds)
        rows["thresholds"] = ", ".join(f"{name} {value:g}" for name, value in suited.items())
    _print_rows(path, rows, description.provenance)


def print_tuned(path: str | Path, tuned: Any) -> None:
    """Prints a `samjax.tuned.Tuned`."""
    leaves = tuned.leaves.values()
    options = {name: value for name, value in tuned.tune.items() if name != "mode"}
    rows = {
        "format": "what was tuned of a base",
        "base": tuned.base.name,
        "base's checksum": tuned.base.checksum,
        "variant": tuned.config.variant,
        "image size": "{} x {}".format(*tuned.config.image_size),
        "mode": tuned.tune["mode"],
        **{f"tune.{name}": " ".join(value) if isinstance(value, list) else value for name, value in options.items()},
        "parameters": f"{sum(leaf.size for leaf in leaves):,}",
        "bytes": f"{sum(leaf.nbytes for leaf in leaves):,}",
    }
    _print_rows(path, rows, tuned.provenance)


def _print_rows(path: str | Path, rows: dict[str, Any], provenance: dict[str, Any]) -> None:
    for key, value in provenance.items():
        rows[f"from {key}"] = " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
    print(printable(path))
    for key, value in rows.items():
        print(printable(f"  {key:<22}{value}", keep="\n"))
