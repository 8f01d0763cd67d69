"""Which implementation of attention computes where."""

import dataclasses

import jax.numpy as jnp
import pytest

from samjax.ops.attention import CHOICES, AttentionForm, Blocked, Plain, choice, choose

FLOAT32 = jnp.dtype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Picky(AttentionForm):
    """Computes nothing, and only where heads have 64 channels."""

    def unsupported(self, platform, dtype, grid, head_dim):
        return None if head_dim == 64 else f"heads must have 64 channels, not {head_dim}"

    def over_grid(self, qkv, tables, heads):
        raise AssertionError


@pytest.mark.parametrize("extent", ["grid", "windows"])
@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_is_one_for_everything(platform, extent, dtype):
    how = choose(platform, extent, jnp.dtype(dtype), (13, 20), 80)
    assert how.unsupported(platform, jnp.dtype(dtype), (13, 20), 80) is None
    assert how in [row.how for row in CHOICES if (row.platform, row.extent) == (platform, extent)]


def test_every_row_names_its_measurement_or_says_that_there_is_none(root):
    for row in CHOICES:
        page = row.measured.split(",")[0]
        assert page == "unmeasured" or (root / page).is_file(), row


def test_the_first_row_that_supports_the_shape_counts(monkeypatch):
    rows = [choice.Choice("gpu", "grid", Picky(), "unmeasured"), choice.Choice("gpu", "grid", Plain(), "unmeasured")]
    monkeypatch.setattr(choice, "CHOICES", (*rows, *CHOICES))
    assert choose("gpu", "grid", FLOAT32, (64, 64), 64) == Picky()
    assert choose("gpu", "grid", FLOAT32, (64, 64), 80) == Plain()
    assert isinstance(choose("cpu", "grid", FLOAT32, (64, 64), 64), Blocked)


def test_where_no_row_serves_the_reasons_are_told(monkeypatch):
    monkeypatch.setattr(choice, "CHOICES", (choice.Choice("gpu", "grid", Picky(), "unmeasured"),))
    with pytest.raises(ValueError, match=r"over grid runs on gpu: Picky.*64 channels, not 80"):
        choose("gpu", "grid", FLOAT32, (64, 64), 80)
    with pytest.raises(ValueError, match="over windows runs on gpu: there is none"):
        choose("gpu", "windows", FLOAT32, (64, 64), 64)


@pytest.mark.parametrize(("form", "options"), [(Blocked, {"rows": 0}), (Plain, {"windows_together": 0})])
def test_impossible_options_are_refused(form, options):
    with pytest.raises(ValueError, match="at least"):
        form(**options)


def test_one_that_is_asked_for_is_taken_or_refused_with_its_reason():
    assert choose("cpu", "grid", FLOAT32, (64, 64), 64, Picky()) == Picky()
    with pytest.raises(ValueError, match=r"Picky.*64 x 32 tokens.*heads must have 64 channels, not 80"):
        choose("cpu", "grid", FLOAT32, (64, 32), 80, Picky())
