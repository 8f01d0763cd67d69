"""Files that travel inside the package: the demo photo and its licence."""

from pathlib import Path


def photo() -> Path:
    """A CC0 photograph of a cup of coffee, 600 x 400 pixels."""
    return Path(__file__).with_name("coffee.jpg")
