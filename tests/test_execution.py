"""How the same mathematics is run, by platform."""

import jax

from samjax.execution import Execution


def test_execution_on_cpu_does_one_small_thing_after_the_other():
    cpu, gpu = Execution.for_backend("cpu"), Execution.for_backend("cuda")
    assert (cpu.platform, cpu.images_per_step, cpu.tokens_per_step) == ("cpu", 1, 1024)
    assert (gpu.platform, gpu.images_per_step, gpu.tokens_per_step) == ("gpu", 8, None)


def test_compute_dtype_is_an_argument_of_execution():
    assert Execution.for_backend("tpu", "bfloat16").dtype == jax.numpy.bfloat16


def test_a_backend_that_is_not_known_is_taken_for_a_gpu():
    assert Execution.for_backend("metal") == Execution.for_backend("gpu")


WRONG = """
from samjax.execution import Execution
WRONG = (
    {"compute_dtype": "float16"},
    {"platform": "cuda"},
    {"attention": "plain"},
    {"window_attention": 8},
    {"tokens_per_step": 0},
)
for fields in WRONG:
    try:
        Execution(**fields)
    except ValueError as error:
        print(error)
"""


def test_what_it_cannot_be_is_refused(run_python):
    """In a process of its own, without the run-time checks of types."""
    dtype, platform, *forms, tokens = run_python(WRONG).splitlines()
    assert "float32 or bfloat16, got 'float16'" in dtype
    assert "cpu, gpu or tpu, got 'cuda'; for_backend" in platform
    assert [form.partition("got ")[2] for form in forms] == ["'plain'", "8"]
    assert "tokens_per_step must be at least 1, or None for all, got 0" in tokens
