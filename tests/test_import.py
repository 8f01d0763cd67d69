"""What `import samjax` and the command `samjax` cost and load."""

import json

import pytest

from samjax import assets

IMPORT_TIME = """
import time
import jax, flax
start = time.process_time()
import samjax
print(time.process_time() - start)
"""

SIDE_EFFECTS = """
import json, sys
import samjax
from jax._src import xla_bridge
loaded = {name.partition(".")[0] for name in sys.modules} | set(sys.modules)
unwanted = {"torch", "tensorflow", "transformers", "matplotlib", "tifffile", "imagecodecs"}
unwanted |= {"samjax.convert", "samjax.readers", "samjax.train"}
print(json.dumps({"loaded": sorted(loaded & unwanted), "backends": xla_bridge.backends_are_initialized()}))
"""

HOST_SIDE = """
import json, sys
import samjax.types, samjax.readers.sources, samjax.writers, samjax.pictures
print(json.dumps(sorted({"flax", "orbax", "optax", "samjax.model"} & set(sys.modules))))
"""

LOADED_BY_COMMAND = """
import json, sys
from samjax.cli.command import main
try:
    assert main(sys.argv[1:]) == 0
except SystemExit as end:
    assert not end.code
print()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} | set(sys.modules))))
"""


def loaded_by(run_python, *args: str, **environment: str) -> set[str]:
    """The modules, and their packages, that are loaded after `samjax` has run with these arguments."""
    code = LOADED_BY_COMMAND.replace("sys.argv[1:]", repr(args))
    return set(json.loads(run_python(code, **environment).splitlines()[-1]))


@pytest.mark.parametrize("args", [(), ("segment",), ("everything",)])
def test_help_does_not_load_jax(run_python, args):
    loaded = loaded_by(run_python, *args, "--help")
    assert not loaded & {"jax", "jaxlib", "flax", "PIL", "requests", "samjax.hub", "samjax.convert", "samjax.train"}
    assert "tyro" in loaded


def test_segmenting_a_photo_loads_what_it_needs_and_no_more(run_python, tmp_path):
    prompt = ("--point", "225,120", "--out", str(tmp_path))
    loaded = loaded_by(run_python, "segment", str(assets.photo()), *prompt, SAMJAX_CACHE=str(tmp_path / "cache"))
    needed = {"jax", "flax", "safetensors", "PIL"}
    assert needed <= loaded
    unwanted = {"orbax", "optax", "tensorstore", "scipy", "grain", "hypothesis", "torch", "requests", "matplotlib"}
    unwanted |= {"tifffile", "imagecodecs", "cv2", "aiohttp", "fsspec"}
    unwanted |= {"samjax.train", "samjax.evaluation", "samjax.readers", "samjax.everything", "samjax.amg.generator"}
    assert not loaded & unwanted


def test_importing_takes_at_most_0_3_s_longer_than_jax_and_flax(run_python):
    """Seconds of computing, the least of five, because the machine has other things to do."""
    assert min(float(run_python(IMPORT_TIME)) for _ in range(5)) <= 0.3


def test_importing_loads_no_other_framework_and_starts_no_device(run_python):
    assert json.loads(run_python(SIDE_EFFECTS)) == {"loaded": [], "backends": False}


def test_readers_and_writers_do_not_load_the_network(run_python):
    assert json.loads(run_python(HOST_SIDE)) == []
