"""Operations of Mask2Former against PyTorch's own and those of `transformers`: values and gradients."""

import functools

import jax
import numpy as np
import pytest
from parity.comparison import relative_error

from samjax.ops import costs
from samjax.ops.attention import deformable_attention
from samjax.ops.points import sample_points

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]  # of libraries that are not ours
BAR = 1e-6


def drawn(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def points_of(*shape):
    """Some of them beyond the edges."""
    return np.random.RandomState(3).uniform(-0.2, 1.2, (*shape, 2)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(function, given, out):
    value, gradient = jax.vjp(function, *given)
    return value, *gradient(out)


def in_torch(function, given, out):
    import torch

    tensors = [torch.tensor(each, requires_grad=True) for each in given]
    value = function(*tensors)
    value.backward(torch.tensor(out))
    return value.detach().numpy(), *(each.grad.numpy() for each in tensors)


@pytest.mark.parametrize("size", [(5, 8), (1, 7)])
def test_sampling_is_grid_sample(size):
    torch = pytest.importorskip("torch")
    grid, points, out = drawn(*size, 3), points_of(40), drawn(40, 3, seed=1)

    def grid_sample(grid, points):
        where = (2 * points - 1)[None, None]
        sampled = torch.nn.functional.grid_sample(grid.permute(2, 0, 1)[None], where, align_corners=False)
        return sampled[0, :, 0].T

    for ours, reference in zip(
        value_and_gradients(sample_points, (grid, points), out), in_torch(grid_sample, (grid, points), out), strict=True
    ):
        assert relative_error(ours, reference) <= BAR


def test_deformable_attention_is_the_plain_form_of_transformers():
    modeling = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    sizes = ((2, 3), (5, 4), (9, 7))
    cells = sum(height * width for height, width in sizes)
    values, points, out = drawn(cells, 4, 6), points_of(11, 4, 3, 2), drawn(11, 4, 6, seed=1)
    weights = np.random.RandomState(4).random_sample((11, 4, 3, 2)).astype(np.float32)

    def plain(values, points, weights):
        result = modeling.multi_scale_deformable_attention(values[None], list(sizes), points[None], weights[None])
        return result[0].reshape(11, 4, 6)

    def ours(values, points, weights):
        return deformable_attention(values, sizes, points, weights)

    given = values, points, weights
    for mine, reference in zip(value_and_gradients(ours, given, out), in_torch(plain, given, out), strict=True):
        assert relative_error(mine, reference) <= BAR


def test_costs_are_those_of_transformers_matcher():
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    logits, masks = 4 * drawn(7, 200), (drawn(3, 200, seed=1) > 0.5).astype(np.float32)
    given = torch.tensor(logits), torch.tensor(masks)
    for ours, theirs in (
        (costs.mask_costs, modeling.pair_wise_sigmoid_cross_entropy_loss),
        (costs.dice_costs, modeling.pair_wise_dice_loss),
    ):
        assert relative_error(jax.jit(ours)(logits, masks), theirs(*given)) <= BAR
