"""Quick compilation for all tests of training."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation):
    """As the fixture says."""
