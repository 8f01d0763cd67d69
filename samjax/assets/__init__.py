"""Files that travel inside the package: the bundled model, photos for demonstrations, and where they come from."""

from pathlib import Path

BUNDLED = "samjax-tiny"  # the name of the bundled model


def model() -> Path:
    """The bundled model's checkpoint, in Meta's names and float16; its card, samjax-tiny.md, is beside it."""
    return Path(__file__).with_name("samjax-tiny.safetensors")


def model_card() -> Path:
    """The bundled model's card: its training data, its training and its scores."""
    return Path(__file__).with_name("samjax-tiny.md")


def photo(name: str = "astronaut") -> Path:
    """A photograph that is in the public domain: "astronaut", "cat" or "rocket"."""
    return Path(__file__).with_name(f"{name}.jpg")
