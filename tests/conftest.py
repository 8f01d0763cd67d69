"""Strict numerics for every test, and what many tests share.

samjax is imported inside fixtures only: its annotations are checked at run time by an import hook that pytest
installs after this file has been read.
"""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

# Most of the time goes into compiling: what one test has compiled serves all, in every process, and the next run too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

import jax  # noqa: E402  (reads the environment)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "float32")  # accelerators would multiply in bfloat16 or TF32

# The same examples on every run, and no time limits: a first example may compile.
hypothesis.settings.register_profile(
    "samjax",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("samjax")


@pytest.fixture(scope="module")
def quick_compilation():
    """Leaves out most of XLA's optimisations, which cost the large programs of training more than they save here.

    Processes that tests start, and the tests of parity, run optimised programs.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


MAPPED = 20_000  # regions of memory; Linux gives a process 65,530, and each compiled program takes some


@pytest.fixture(scope="module", autouse=True)
def bounded_programs():
    """Compiled programs are let go between files before a process runs out of memory, or of regions to map it in."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPPED:
        jax.clear_caches()


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def sam():
    """A small model with random parameters."""
    from example_models import random_sam

    return random_sam()


@pytest.fixture(scope="session")
def embedding(sam):
    """Of a photo that is wider than the model's input."""
    from example_models import random_photo

    return sam.encode(random_photo(60, 90))


@pytest.fixture(scope="session")
def shapes():
    """A small model that has learnt to segment discs and boxes of plain colours."""
    from example_models import shapes_sam

    return shapes_sam()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of test photos, outside the tree."""
    folder = os.environ.get("SAMJAX_TEST_DATA")
    if folder is None:
        pytest.skip("SAMJAX_TEST_DATA names no folder of test photos")
    return Path(folder)


@pytest.fixture(scope="session")
def photos(test_data) -> dict[str, np.ndarray]:
    """dog and groceries (534 x 800 pixels) and truck (1200 x 1800), as RGB."""
    from samjax import read_image

    return {name: read_image(test_data / "photos" / f"{name}.jpg") for name in ("dog", "groceries", "truck")}


@pytest.fixture(scope="session")
def run_python():
    """Run code in a fresh interpreter and return what it prints; a failure shows its error output."""

    def run(code: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
