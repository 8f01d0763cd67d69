import jax
import numpy as np

from samjax.ops import attention

attention_within_masks = jax.jit(attention.attention_within_masks)


def drawn(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def test_a_query_attends_within_its_mask_and_everywhere_where_that_is_empty():
    q, k, v = drawn(4, 2, 3), drawn(5, 2, 3, seed=1), drawn(5, 2, 3, seed=2)
    masks = np.array([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]], bool)
    found = np.asarray(attention_within_masks(q, k, v, masks))
    for query, mask in enumerate(masks):
        inside = mask if mask.any() else np.ones(5, bool)
        for head in range(2):
            logits = k[inside, head].astype(np.float64) @ q[query, head] / np.sqrt(3)
            weights = np.exp(logits - logits.max())
            expected = weights / weights.sum() @ v[inside, head]
            np.testing.assert_allclose(found[query, head], expected, atol=1e-6)


def test_what_lies_outside_the_mask_is_not_seen():
    q, k, v = drawn(1, 2, 3), drawn(5, 2, 3, seed=1), drawn(5, 2, 3, seed=2)
    masks = np.array([[True, False, True, False, True]])
    changed = np.where(masks[0][:, None, None], v, 1e6).astype(np.float32)
    found = attention_within_masks(q, k, changed, masks)
    np.testing.assert_array_equal(found, attention_within_masks(q, k, v, masks))
