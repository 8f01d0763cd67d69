"""Files of PyTorch's format before 1.6."""

from example_pickles import Built, save_as_before_1_6
from example_refusals import refusal

from samjax import convert


def test_files_of_pytorch_before_1_6_are_read(state, checksum, tmp_path):
    path = save_as_before_1_6(tmp_path / "sam.pth", {"loss": Built("my_pkg.Loss"), "model": state})
    described = convert.describe(path)
    assert described.checksum == checksum
    assert described.skipped == ("loss (my_pkg.Loss)",)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert "truncated" in refusal(path)
    path.write_bytes(content.replace(b"little_endian", b"LITTLE_ENDIAN"))
    assert "big-endian" in refusal(path)
