from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five photos, in a folder and a sub-folder."""
    from example_outputs import save

    for number, name in enumerate(("a.png", "b.png", "c.png", "sub/a.png", "sub/z.png")):
        save(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"
