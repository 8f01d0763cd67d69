"""What `import samjax` costs and does."""

import json

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

OLD_NAMES = """
import importlib, json, pkgutil, sys, warnings
import samjax
from samjax.renamed import RENAMED
told = {}
for old, new in RENAMED.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = importlib.import_module(old)
    assert module is importlib.import_module(new) and module.__spec__.name == new, old
    told[old] = [str(warning.message) for warning in caught if warning.category is FutureWarning]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from samjax.data.sources import open_sources
import samjax.readers.sources
assert open_sources is samjax.readers.sources.open_sources
print(json.dumps(told))
"""


def test_importing_takes_at_most_0_3_s_longer_than_jax_and_flax(run_python):
    """Seconds of computing, the least of five, because the machine has other things to do."""
    assert min(float(run_python(IMPORT_TIME)) for _ in range(5)) <= 0.3


def test_importing_loads_no_other_framework_and_starts_no_device(run_python):
    assert json.loads(run_python(SIDE_EFFECTS)) == {"loaded": [], "backends": False}


def test_readers_and_writers_do_not_load_the_network(run_python):
    assert json.loads(run_python(HOST_SIDE)) == []


def test_modules_of_0_1_are_found_under_their_old_names_with_a_warning(run_python):
    told = json.loads(run_python(OLD_NAMES))
    assert len(told) > 15
    for old, messages in told.items():
        assert any(message.startswith(f"{old} is now samjax.") for message in messages), (old, messages)
