"""NumPy's archives are read, and objects in them refused."""

import numpy as np
from example_pickles import Name
from example_refusals import refusal

from samjax import convert


def test_an_npz_is_read(arrays, checksum, tmp_path):
    np.savez(tmp_path / "sam.npz", **arrays)
    assert convert.describe(tmp_path / "sam.npz").checksum == checksum
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    assert "numpy.savez, not savez_compressed" in refusal(tmp_path / "small.npz")
    np.savez(tmp_path / "evil.npz", a=np.array([Name("x.y")], object))
    assert "an array of objects" in refusal(tmp_path / "evil.npz")
