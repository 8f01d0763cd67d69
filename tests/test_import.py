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


def test_importing_takes_at_most_0_3_s_longer_than_jax_and_flax(run_python):
    """Seconds of computing, the least of five, because the machine has other things to do."""
    assert min(float(run_python(IMPORT_TIME)) for _ in range(5)) <= 0.3


def test_importing_loads_no_other_framework_and_starts_no_device(run_python):
    assert json.loads(run_python(SIDE_EFFECTS)) == {"loaded": [], "backends": False}


def test_readers_and_writers_do_not_load_the_network(run_python):
    assert json.loads(run_python(HOST_SIDE)) == []
