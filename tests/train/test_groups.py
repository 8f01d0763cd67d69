"""The table of what is trained against sums over the trees."""

import jax
import numpy as np
import pytest
from example_training import NANO

from samjax.config import VARIANTS
from samjax.model import abstract_params


def recipe(mode, optimizer="adamw", **options):
    from samjax.train.config import OptimConfig, TrainConfig, TuneConfig

    optim = OptimConfig(optimizer=optimizer, learning_rate=1e-3, layer_decay=0.5, encoder_rate=0.1)
    return TrainConfig(optim=optim, tune=TuneConfig(mode, **options))


def numbers(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("mode", ["full", "decoder", "lora+parser+decoder"])
def test_numbers_and_bytes_are_sums_over_the_trees(mode, optimizer):
    from samjax.train.groups import optimizer_state, trained_groups
    from samjax.train.trainable import trained_shapes

    config = recipe(mode, optimizer)
    groups, trained = trained_groups(config, NANO), numbers(trained_shapes(config, NANO))
    assert sum(group.parameters for group in groups) == trained
    np.testing.assert_allclose(sum(group.share for group in groups), trained / numbers(abstract_params(NANO)))
    # Counters, and the three coefficients of Muon's polynomial, are nobody's.
    state = [leaf for leaf in jax.tree.leaves(optimizer_state(config, NANO)) if leaf.shape not in ((), (3,))]
    kept = 4 * numbers(state)
    assert sum(group.optimizer_bytes for group in groups) == kept
    matrices = 0 if optimizer == "adamw" else 8 * trained - kept  # Muon has one moment of them, Adam two
    assert (matrices > 0) == (optimizer == "muon")


def test_groups_of_full_tuning_with_their_rates():
    from samjax.train.groups import trained_groups

    groups = {group.name: group for group in trained_groups(recipe("full"), NANO)}
    expected = {
        "patches and positions": pytest.approx((1.25e-5, 1.25e-5)),
        "encoder blocks": pytest.approx((2.5e-5, 5e-5)),
        "neck": pytest.approx((1e-4, 1e-4)),
        "prompt encoder": (1e-3, 1e-3),
        "mask decoder": (1e-3, 1e-3),
    }
    assert list(groups) == list(expected)  # as a photo passes them
    assert {name: group.rates for name, group in groups.items()} == expected
    assert groups["mask decoder"].parameters == numbers(abstract_params(NANO)["mask_decoder"])


@pytest.mark.parametrize(("mode", "group"), [("hq", "HQ token"), ("adapter+decoder", "adapters")])
def test_what_a_mode_adds_is_a_group_of_its_own(mode, group):
    """Counts of HQ-SAM's authors' code and of AdaptFormer's bottleneck (two matrices, two biases, a scale)."""
    from samjax.train.groups import trained_groups
    from samjax.train.trainable import grown_network

    config, vit_b = recipe(mode), VARIANTS["vit_b"]
    groups = {each.name: each for each in trained_groups(config, grown_network(config.tune, vit_b))}
    assert list(groups) == [group, *(["mask decoder"] if mode == "adapter+decoder" else [])]
    assert groups[group].parameters == (1_071_104 if mode == "hq" else 12 * (2 * 768 * 64 + 64 + 768 + 1))


def test_the_table_says_it_in_a_line_each():
    from samjax.train.groups import table, trained_groups

    lines = table(trained_groups(recipe("lora+parser"), VARIANTS["vit_b"])).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "trained",
        "low-rank changes, image encoder",
        "singular values, image encoder",
        "all that is trained",
    ]
    assert lines[1].split()[-7:] == ["147,456", "0.1573%", "2.44e-08", "to", "5.00e-05", "1.18", "MB"]
    assert lines[2].split()[-5:] == ["512", "0.0005%", "1.00e-04", "0.0041", "MB"]
    assert "147,968" in lines[3]
