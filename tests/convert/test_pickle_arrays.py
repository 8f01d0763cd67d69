"""NumPy arrays in pickles are read like tensors."""

import pickle

import ml_dtypes
import numpy as np
import pytest
from example_models import SMALL, random_params
from example_pickles import save
from flax.traverse_util import flatten_dict

from samjax import convert


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["torch.save", "pickle"])
def test_arrays_of_numpy_are_read_like_tensors(kind, protocol, arrays, checksum, tmp_path):
    forms = [
        lambda array: array,
        np.asfortranarray,
        lambda array: array.astype(">f4"),
        lambda array: np.concatenate([array, array])[: len(array)],
    ]
    content = {"model": {name: forms[i % 4](array) for i, (name, array) in enumerate(arrays.items())}}
    path = tmp_path / "sam.pkl"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        save(path, content, protocol)
    assert convert.describe(path).checksum == checksum
    # Where NumPy 1 wrote it, its modules had other names.
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    if kind == "pickle" and protocol < 4:  # no lengths of names and frames, no checksum
        assert convert.describe(path).checksum == checksum


def test_half_precision_arrays_keep_their_type(arrays, tmp_path):
    for dtype in (np.float16, ml_dtypes.bfloat16):
        (tmp_path / "sam.pkl").write_bytes(pickle.dumps({name: a.astype(dtype) for name, a in arrays.items()}))
        _, params = convert.read(tmp_path / "sam.pkl")
        found, expected = flatten_dict(params), flatten_dict(random_params(SMALL))
        assert all(np.array_equal(leaf, expected[name].astype(dtype)) for name, leaf in found.items())
        assert {leaf.dtype for leaf in found.values()} == {np.dtype(dtype)}
