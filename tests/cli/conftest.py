"""The command `samjax`, run as a user runs it, on a small model."""

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from example_models import random_sam

    from samjax import convert

    sam = random_sam()
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    convert.write(path, sam.config, sam.params)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    from example_models import random_photo

    path = tmp_path_factory.mktemp("photos") / "blobs.png"
    Image.fromarray(random_photo(60, 90)).save(path)
    return path


@pytest.fixture
def samjax(tmp_path, monkeypatch, capsys):
    """Runs the command; returns (exit code, standard output, standard error)."""
    from samjax.cli import command

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))

    def run(*args) -> tuple[int, str, str]:
        code = command.main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
