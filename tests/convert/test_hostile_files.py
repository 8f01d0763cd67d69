"""Damaged files of both formats give one clear error, quickly, or a whole model."""

import pytest
from example_models import SMALL, random_params
from example_refusals import quickly, refuse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from samjax import convert
from samjax.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a sound checkpoint in each of the two file formats."""
    folder = tmp_path_factory.mktemp("sound")
    for name in ("sam.pth", "sam.safetensors"):
        convert.write(folder / name, SMALL, random_params(SMALL))
    return {file.suffix: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999, 0.999999])
def test_a_truncated_file_is_refused(suffix, share, sound, tmp_path):
    path = tmp_path / f"sam{suffix}"
    path.write_bytes(sound[suffix][: int(share * len(sound[suffix]))])
    refuse(path)


def read_or_refuse(path):
    """Damage may miss everything that matters, but whatever is read is a whole model, and nothing else is raised."""
    with quickly():
        try:
            return convert.read(path)
        except CheckpointError:
            return None, None


@given(st.data())
def test_flipped_bits_of_a_pth_are_found(sound, tmp_path_factory, data):
    """Every byte of a zip archive that carries meaning is covered by a checksum or compared with another."""
    content = bytearray(sound[".pth"])
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flipped") / "sam.pth"
    path.write_bytes(content)
    config, params = read_or_refuse(path)
    if config is not None:
        convert.write(path, config, params, overwrite=True)
        assert path.read_bytes() == sound[".pth"]


@settings(max_examples=20)  # each writes and reads four files
@given(st.integers(0, 15_000), st.binary(min_size=1, max_size=40))
@example(0, b"PK\x05\x06")
def test_overwritten_bytes_never_raise_anything_else(sound, tmp_path_factory, position, patch):
    for suffix, content in sound.items():
        path = tmp_path_factory.mktemp("patched") / f"sam{suffix}"
        path.write_bytes(content[:position] + patch + content[position + len(patch) :])
        read_or_refuse(path)
        # The same among the last bytes, where a zip archive keeps its directory.
        at = len(content) - position
        path.write_bytes(content[:at] + patch + content[at + len(patch) :])
        read_or_refuse(path)
