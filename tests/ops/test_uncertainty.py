import functools

import jax
import numpy as np

from samjax.ops.points import sample_points
from samjax.ops.uncertainty import split_count, uncertain_points


def test_three_quarters_of_the_points_are_the_least_certain_of_three_times_as_many():
    random = np.random.RandomState(0)
    logits = random.standard_normal((6, 9)).astype(np.float32)
    candidates, others = (random.random_sample((count, 2)).astype(np.float32) for count in split_count(64, 3.0, 0.75))
    assert (len(candidates), len(others)) == (192, 16)
    points = np.asarray(jax.jit(functools.partial(uncertain_points, count=64))(logits, candidates, others))
    assert points.shape == (64, 2)
    np.testing.assert_array_equal(points[48:], others)
    certainty = np.abs(np.asarray(jax.jit(sample_points)(logits[..., None], candidates))[:, 0])
    least = candidates[np.argsort(certainty, kind="stable")[:48]]
    np.testing.assert_array_equal(np.unique(points[:48], axis=0), np.unique(least, axis=0))


def test_published_numbers_of_points():
    """12,544 = 112² points: three times as many candidates, of which 9,408 are chosen, and 3,136 random ones."""
    assert split_count(12544, 3.0, 0.75) == (37632, 3136)
