"""A small model as a state dict in several forms."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tensors():
    """The parameters under Meta's names and in PyTorch's layout, unread."""
    from example_models import SMALL, random_params
    from flax.traverse_util import flatten_dict

    from samjax.checkpoint import lazy
    from samjax.convert.mapping import to_torch
    from samjax.convert.matching import expected_entries

    table = expected_entries(SMALL)
    leaves = flatten_dict(random_params(SMALL), sep="/")
    return {table[name].meta: to_torch(lazy(leaf), table[name].axes) for name, leaf in leaves.items()}


@pytest.fixture(scope="session")
def arrays(tensors) -> dict[str, np.ndarray]:
    """The same, read."""
    return {name: tensor.read() for name, tensor in tensors.items()}


@pytest.fixture(scope="session")
def state(arrays):
    """The same as `torch.save` pickles it."""
    from example_pickles import Tensor

    return {name: Tensor(array) for name, array in arrays.items()}


@pytest.fixture(scope="session")
def checksum(tmp_path_factory) -> str:
    """The checksum of these parameters, in every format."""
    from example_models import SMALL, random_params

    from samjax import convert

    path = tmp_path_factory.mktemp("plain") / "sam"
    convert.write(path, SMALL, random_params(SMALL))
    return convert.describe(path).checksum


@pytest.fixture
def trap(tmp_path):
    """A file that any of the hostile pickles would make if it ran."""
    yield tmp_path / "trap"
    assert not (tmp_path / "trap").exists()
