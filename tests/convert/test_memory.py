"""Converting ViT-H, 2.4 GB of parameters, needs a fraction of them in memory."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from samjax import VARIANTS, convert
from samjax.checkpoint import LazyArray

pytestmark = pytest.mark.heavy

CONVERT = r"""
import pathlib, re, sys
import jax, psutil
from samjax import convert, hub
jax.devices()
before = psutil.Process().memory_info().rss
source, destination, to = sys.argv[1:]
if to == "load":
    hub.load(source)
else:
    convert.convert(source, destination, to)
# Not ru_maxrss: a child inherits that of the process that started it.
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
print((peak - before) / (637 * 2**20 * 4))
"""


@pytest.fixture(scope="module")
def vit_h(tmp_path_factory):
    """A checkpoint whose every parameter has its own constant: written in seconds, never held in memory."""
    import jax

    from samjax.model import abstract_params

    count = iter(range(1, 10_000))

    def constant(leaf):
        value = next(count)
        return LazyArray(leaf.shape, np.dtype(np.float32), lambda: np.full(leaf.shape, value, np.float32))

    config = VARIANTS["vit_h"]
    path = tmp_path_factory.mktemp("vit_h") / "sam.pth"
    convert.write(path, config, jax.tree.map(constant, abstract_params(config)))
    yield path
    path.unlink()


@pytest.mark.parametrize(
    ("to", "name", "bound"),
    [
        ("native", "native", 0.3),
        ("meta", "sam.safetensors", 0.3),
        ("meta", "sam.pt", 0.3),
        ("huggingface", "folder", 0.3),
        ("load", "-", 1.3),  # holds all parameters, of course
    ],
)
def test_peak_memory_in_shares_of_the_parameters(to, name, bound, vit_h, tmp_path, run_python):
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process its peak")
    arguments = [str(vit_h), str(tmp_path / name), to]
    peak = float(run_python(f"import sys; sys.argv[1:] = {arguments!r}\n" + CONVERT, **os.environ))
    shutil.rmtree(tmp_path)  # gigabytes
    assert peak < bound
