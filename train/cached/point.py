"""The latest point of the encoder before anything that is trained."""

from collections.abc import Iterable

from samjax.config import SamConfig
from samjax.model import tap_names
from samjax.nn.encoders import family_of

IMAGE = "image"  # the point after the whole encoder: the features that the decoder takes


def latest_point(sam: SamConfig, trained: Iterable[str]) -> str | None:
    """The last output of the encoder that no trained parameter has a part in.

    Args:
        sam: the network.
        trained: names of what is trained. A name may go on after that of a parameter of the network, as those of
            low-rank factors do.

    Returns:
        `IMAGE`, the name of a tap (`samjax.model.tap_names`), or None if photos themselves are needed.
    """
    encoder, part = sam.image_encoder, "image_encoder/"
    layers = [family_of(encoder).layer(encoder, name.removeprefix(part)) for name in trained if name.startswith(part)]
    if not layers:
        return IMAGE
    # Layer i + 1 is block i, whose output is the i-th tap; what comes after the blocks is layer depth + 1.
    before = min(layers) - 2
    return tap_names(sam)[before] if before >= 0 else None


def arrays_at(sam: SamConfig, point: str) -> tuple[str, ...]:
    """Names of what is kept at a point: itself, and earlier taps that the decoder takes."""
    names = tap_names(sam)
    earlier = names if point == IMAGE else names[: names.index(point)]
    return (point, *(tap for tap in sam.decoder_taps if tap in earlier))
