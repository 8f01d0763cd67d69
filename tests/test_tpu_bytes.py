"""The counter of bytes in benchmarks/tpu_bytes.py, on a program written down by hand in XLA's notation."""

import importlib

import pytest

PROGRAM = """
HloModule jit_f

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %y = f32[8,128]{1,0:T(8,128)} fusion(%x, %x), kind=kLoop, calls=%inner, metadata={op_name="jit(f)/while/body/mul"}
  ROOT %t = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%i, %y)
}

%condition (p.1: (s32[], f32[8,128])) -> pred[] {
  %p.1 = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %bound = s32[] BOUND
  ROOT %less = pred[]{:S(1)} compare(%i.1, %bound), direction=LT
}

%small (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %r = f32[8,128]{1,0:T(8,128)S(1)} negate(%q), metadata={op_name="jit(f)/cond/neg"}
}

%large (q.1: f32[8,128]) -> f32[8,128] {
  %q.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %r.1 = f32[8,128]{1,0:T(8,128)} negate(%q.1), metadata={op_name="jit(f)/cond/neg"}
}

ENTRY %main (a: f32[8,128], b: bf16[64,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %flag = pred[]{:S(1)} constant(true)
  %s = ((bf16[64,128]{1,0:T(8,128)(2,1)}), bf16[16,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%b)
  %d = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} slice-done(%s)
  %c = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %e = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%c)
  %t.1 = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%zero, %a)
  %w = (s32[], f32[8,128]{1,0:T(8,128)}) while(%t.1), condition=%condition, body=%body
  %z = f32[8,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
  ROOT %v = f32[8,128]{1,0:T(8,128)} conditional(%flag, %z, %z), branch_computations={%small, %large}
}
"""
ARRAY = 8 * 128 * 4


@pytest.fixture
def counter(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "benchmarks")
    return importlib.import_module("tpu_bytes").bytes_moved


def test_loops_conditions_and_copies_count_with_what_lies_in_memory(counter):
    moved = counter(PROGRAM.replace("BOUND", "constant(5)"))
    assert moved["fusion", "jit(f)/while/body/mul"] == 5 * 2 * ARRAY  # an operand that is given twice is one
    assert moved["negate", "jit(f)/cond/neg"] == 2 * ARRAY  # of the branch that moves more
    assert moved["copy-start", "?"] == ARRAY  # to the memory on chip
    assert moved["slice-start", "?"] == 16 * 128 * 2  # the slice, not what it is cut from
    assert moved.total() == (10 + 2 + 1) * ARRAY + 16 * 128 * 2


def test_a_loop_whose_bound_is_an_input_must_be_told(counter):
    program = PROGRAM.replace("BOUND", "parameter(7)")
    with pytest.raises(ValueError, match="the condition of loop w has no bound"):
        counter(program)
    assert counter(program, unbounded=2)["fusion", "jit(f)/while/body/mul"] == 2 * 2 * ARRAY
