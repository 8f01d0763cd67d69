"""Which implementation of attention computes where."""

import dataclasses

import jax.numpy as jnp
import pytest

from samjax.ops.attention import (
    CHOICES,
    AttentionForm,
    Blocked,
    CuDNN,
    Folded,
    Plain,
    TPUKernel,
    Workload,
    choice,
    choose,
    grid_attention,
)

FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
VIT_B = Workload("gpu", FLOAT32, (64, 64), None, 12, 64)
VIT_H = Workload("gpu", FLOAT32, (64, 64), None, 16, 80)


@dataclasses.dataclass(frozen=True)
class Picky(AttentionForm):
    """Computes nothing, and only where heads have 64 channels."""

    def unsupported(self, work):
        return None if work.head_dim == 64 else f"heads must have 64 channels, not {work.head_dim}"

    def over_grid(self, qkv, tables, heads):
        raise AssertionError


@pytest.mark.parametrize("extent", ["grid", "windows"])
@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_is_one_for_everything(platform, extent, dtype):
    work = Workload(platform, jnp.dtype(dtype), (13, 20), None if extent == "grid" else 7, 5, 24)
    how = choose(work)
    assert how.unsupported(work) is None
    assert how in [row.how for row in CHOICES if (row.platform, row.extent) == (platform, extent)]


def test_every_row_names_its_measurement_or_says_that_there_is_none(root):
    for row in CHOICES:
        page, _, heading = row.measured.partition(", ")
        assert page == "unmeasured" or f"\n## {heading}\n" in (root / page).read_text(), row


def test_the_first_row_that_supports_the_shape_counts(monkeypatch):
    rows = [choice.Choice("gpu", "grid", Picky(), "unmeasured"), choice.Choice("gpu", "grid", Plain(), "unmeasured")]
    monkeypatch.setattr(choice, "CHOICES", (*rows, *CHOICES))
    assert choose(VIT_B) == Picky()
    assert choose(VIT_H) == Plain()
    assert isinstance(choose(VIT_B._replace(platform="cpu")), Blocked)


def test_where_no_row_serves_the_reasons_are_told(monkeypatch):
    monkeypatch.setattr(choice, "CHOICES", (choice.Choice("gpu", "grid", Picky(), "unmeasured"),))
    with pytest.raises(ValueError, match=r"over grid runs on gpu: Picky.*64 channels, not 80"):
        choose(VIT_H)
    with pytest.raises(ValueError, match="over windows runs on gpu: there is none"):
        choose(VIT_B._replace(window=14))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (Blocked, {"rows": 0}),
        (Folded, {"rows": 0}),
        (Plain, {"windows_together": 0}),
        (TPUKernel, {"queries": 0}),
    ],
)
def test_impossible_options_are_refused(form, options):
    with pytest.raises(ValueError, match="at least"):
        form(**options)


def test_one_that_is_asked_for_is_taken_or_refused_with_its_reason():
    assert choose(VIT_B, Picky()) == Picky()
    with pytest.raises(ValueError, match=r"Picky.*64 x 32 tokens.*heads must have 64 channels, not 80"):
        choose(VIT_H._replace(grid=(64, 32)), Picky())


@pytest.mark.parametrize("window", [None, 14], ids=["grid", "windows"])
@pytest.mark.parametrize("work", [VIT_B, VIT_H, VIT_B._replace(grid=(48, 80))], ids=["B", "H", "wide"])
def test_on_tpus_half_precision_takes_the_kernel_and_float32_does_not(work, window):
    half = work._replace(platform="tpu", window=window, dtype=BFLOAT16)
    assert isinstance(choose(half), TPUKernel)
    assert isinstance(choose(half._replace(dtype=FLOAT32)), Plain if window else Blocked)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"platform": "gpu"}, "for TPUs"),
        ({"dtype": FLOAT32}, "bfloat16, not float32"),
        ({"heads": 3}, "multiple of 128, not 192"),
        ({"grid": (64, 130)}, "at most 128 tokens, not 130"),
        ({"grid": (128, 128)}, "128 x 128 tokens have more logits than fit"),
        ({"heads": 16, "head_dim": 80, "grid": (80, 64)}, "37 MiB on chip"),
        ({"heads": 16, "head_dim": 80, "grid": (128, 128), "window": 14}, "on chip, more than 34"),
    ],
    ids=["platform", "dtype", "heads", "side", "logits", "keys", "strips"],
)
def test_what_the_kernel_cannot_do_is_told(change, reason):
    work = VIT_B._replace(platform="tpu", dtype=BFLOAT16)
    assert TPUKernel().unsupported(work) is None
    told = TPUKernel().unsupported(work._replace(**change))
    assert told is not None
    assert reason in told


@pytest.mark.parametrize(
    ("capability", "work", "runs"),
    [
        ((9, 0), VIT_H, True),  # 80 + 64 + 64 + 1 channels
        ((8, 0), VIT_H, False),
        ((8, 0), VIT_H._replace(window=14), True),
        ((9, 0), VIT_H._replace(grid=(128, 128)), False),
        ((7, 5), VIT_H._replace(window=14), False),
        ((8, 0), VIT_B._replace(grid=(32, 32)), True),  # 64 + 32 + 32, and none that pads
        ((8, 0), VIT_B._replace(grid=(31, 33)), False),
        (None, VIT_H, False),
    ],
)
def test_cudnn_is_taken_where_it_takes_the_folded_heads(monkeypatch, capability, work, runs):
    monkeypatch.setattr("samjax.ops.attention.cudnn._compute_capability", lambda: capability)
    half = work._replace(dtype=BFLOAT16)
    assert (CuDNN().unsupported(half) is None) is runs
    assert isinstance(choose(half), CuDNN) is runs
    assert "float32" in (CuDNN().unsupported(work) or "")
    assert "NVIDIA" in (CuDNN().unsupported(half._replace(platform="tpu")) or "")


def test_tpus_before_v5_do_without_the_kernel(monkeypatch):
    monkeypatch.setattr("samjax.ops.attention.tpu._attached_kind", lambda: "TPU v4")
    work = VIT_B._replace(platform="tpu", dtype=BFLOAT16)
    assert "v5 or later, not TPU v4" in (TPUKernel().unsupported(work) or "")
    assert choose(work) == Folded()
    monkeypatch.setattr("samjax.ops.attention.tpu._attached_kind", lambda: "TPU v5 lite")
    assert choose(work) == TPUKernel()


def test_heads_that_do_not_fill_registers_are_refused_also_where_nobody_chooses():
    with pytest.raises(ValueError, match="multiple of 128, not 192"):
        grid_attention(jnp.zeros((2, 16, 576)), (jnp.zeros((3, 64)), jnp.zeros((31, 64))), 3, TPUKernel(interpret=True))
