"""Small photos and objects to write in the layouts of others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """Indices of tars go to a folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SAMJAX_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """40 x 60 pixels."""
    y, x = np.mgrid[:40, :60]
    return np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)


@pytest.fixture(scope="session")
def disc() -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    return (x - 20) ** 2 + (y - 15) ** 2 < 100


@pytest.fixture(scope="session")
def bar() -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    return (y > 30) & (x > 5)


@pytest.fixture
def picture():
    """Writes an array as a picture, in the format that the file's ending says."""

    def write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path

    return write
