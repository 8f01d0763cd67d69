"""Assignments against scipy's `linear_sum_assignment`."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from samjax.ops.assignment import assign

assign_all = jax.jit(jax.vmap(assign))


def drawn(shape, seed=0):
    """Costs of queries that resemble each other, so that the best for one object is the best for others too."""
    random = np.random.RandomState(seed)
    *batch, queries, objects = shape
    costs = 0.3 * random.standard_normal(shape) + random.exponential(1, (*batch, queries, 1))
    return (costs + random.exponential(1, (*batch, 1, objects))).astype(np.float32)


def least(costs: np.ndarray, valid: np.ndarray) -> float:
    taken = costs[:, valid].astype(np.float64)
    return float(taken[linear_sum_assignment(taken)].sum())


def check(costs: np.ndarray, valid: np.ndarray, found: np.ndarray) -> None:
    """Each present object has a query of its own as far as they go, and no assignment costs less."""
    queries = costs.shape[0]
    matched = found >= 0
    assert not matched[~valid].any()
    assert matched.sum() == min(valid.sum(), queries)
    assert len(np.unique(found[matched])) == matched.sum()
    total = costs.astype(np.float64)[found[matched], np.flatnonzero(matched)].sum()
    np.testing.assert_allclose(total, least(costs, valid), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [(4, 12, 12), (4, 30, 12), (4, 12, 30), (3, 1, 5)],
    ids=lambda shape: str(shape[1:]),
)
@pytest.mark.parametrize("present", ["all", "some", "one", "none"])
def test_no_assignment_costs_less(shape, present):
    """Square, with more queries than objects, with more objects than queries; in any of the slots."""
    costs, objects = drawn(shape), shape[-1]
    random = np.random.RandomState(1)
    valid = {"all": np.ones, "none": np.zeros}.get(present, np.zeros)((shape[0], objects), bool)
    for row in valid:
        if present == "some":
            row[random.permutation(objects)[: objects // 2 + 1]] = True
        if present == "one":
            row[random.randint(objects)] = True
    for each in zip(costs, valid, np.asarray(assign_all(costs, valid)), strict=True):
        check(*each)


def test_what_stands_in_an_empty_slot_does_not_matter():
    costs, valid = drawn((1, 10, 6)), np.array([[True, False, True, True, False, True]])
    other = np.where(valid[:, None], costs, np.float32(np.nan))
    np.testing.assert_array_equal(assign_all(costs, valid), assign_all(other, valid))


def test_costs_that_are_no_numbers_are_taken_last():
    costs = drawn((1, 6, 4))
    costs[0, :3, 1], costs[0, 3, 0], costs[0, 4] = np.nan, np.inf, np.nan
    valid = np.ones((1, 4), bool)
    (found,) = np.asarray(assign_all(costs, valid))
    assert len(np.unique(found)) == 4
    assert np.isfinite(costs[0, found, np.arange(4)]).all()
    check(np.nan_to_num(costs[0], nan=1e6, posinf=1e6), valid[0], found)


def test_an_object_without_any_cost_that_is_a_number_takes_what_the_others_leave():
    costs, valid = drawn((20, 6, 5)), np.ones((20, 5), bool)
    for image, each in enumerate(costs):
        each[:, image % 5] = np.nan
    for image, found in enumerate(np.asarray(assign_all(costs, valid))):
        assert len(np.unique(found)) == 5
        others = np.arange(5) != image % 5
        check(costs[image], others, np.where(others, found, -1))


def test_no_slots_at_all():
    assert assign_all(np.zeros((2, 5, 0), np.float32), np.zeros((2, 0), bool)).shape == (2, 0)
