"""Quick compilation for tests of training."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Leaves out most of XLA's optimisations, which cost these large programs more than they save here.

    Processes that tests start, and the tests of parity, run optimised programs.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
