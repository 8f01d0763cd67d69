"""The simulated user: fair draws, moments and caps of the box, the right labels, and never a click in the padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, kstest

ABSENT, NOT_A_POINT, BACKGROUND, FOREGROUND, BOX_MIN, BOX_MAX = -2, -1, 0, 1, 2, 3
RATIO = 4
HEIGHT, WIDTH = 24, 32  # of the padded input
PHOTO = 22, 29  # ends within cells


def target_of(mask, photo=PHOTO):
    from samjax.train.batch import pack_cells
    from samjax.train.tasks.interactive.user import Target

    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[: photo[0], : photo[1]] = True
    assert not (mask & ~inside).any()
    return Target(jnp.asarray(pack_cells(mask, RATIO)), jnp.asarray(pack_cells(inside, RATIO)))


def rectangle(top, bottom, left, right):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


OBJECT = rectangle(5, 15, 6, 22)  # with part-filled cells on every side
NOTHING = np.zeros((HEIGHT, WIDTH), bool)
INSIDE = rectangle(0, PHOTO[0], 0, PHOTO[1])


def config(**options):
    from samjax.train.config import InteractionConfig

    return InteractionConfig(**options)


@functools.cache
def drawn_first(interaction):
    from samjax.train.tasks.interactive.user import first_prompt

    return jax.jit(jax.vmap(lambda key, target: first_prompt(interaction, key, target, RATIO), (0, None)))


def first_prompts(mask, count=4000, seed=0, **options):
    """Points and labels of many first prompts for one mask."""
    slots = drawn_first(config(**options))(jax.random.split(jax.random.key(seed), count), target_of(mask))
    return np.asarray(slots.points), np.asarray(slots.labels)


@functools.cache
def drawn_clicks():
    from samjax.train.tasks.interactive.user import click

    return jax.jit(jax.vmap(functools.partial(click, ratio=RATIO), (0, None, None, None, None)))


def empty_slots(count=3):
    from samjax.train.tasks.interactive.user import Slots

    return Slots(jnp.zeros((2 + count, 2)), jnp.full(2 + count, ABSENT, jnp.int32))


def clicks(predicted, mask, count=4000, before=0, slots=None, seed=0):
    """(x, y) and label of many clicks; `predicted` has a value a cell."""
    keys = jax.random.split(jax.random.key(seed), count)
    slots = drawn_clicks()(keys, slots or empty_slots(), jnp.int32(before), jnp.asarray(predicted), target_of(mask))
    return np.asarray(slots.points[:, 2 + before]).astype(int), np.asarray(slots.labels[:, 2 + before])


def cells_of(mask):
    """The prediction that has the cells in which the mask has a pixel."""
    return mask.reshape(HEIGHT // RATIO, RATIO, WIDTH // RATIO, RATIO).any((1, 3))


def pixels_of(predicted):
    return predicted.repeat(RATIO, 0).repeat(RATIO, 1)


def assert_uniform(points, region):
    """Checks that pixels of a set are equally likely, and others never found."""
    drawn = np.zeros(region.shape, int)
    np.add.at(drawn, tuple(points.astype(int).T[::-1]), 1)
    assert (drawn[~region] == 0).all()
    assert chisquare(drawn[region]).pvalue > 1e-3


# The first prompt


def test_the_first_point_is_uniform_over_the_mask():
    points, labels = first_prompts(OBJECT, box_probability=0.0)
    assert_uniform(points[:, 0], OBJECT)
    np.testing.assert_array_equal(labels, np.tile([FOREGROUND, NOT_A_POINT] + [ABSENT] * 8, (len(labels), 1)))


@pytest.mark.parametrize("share", [0.5, 0.2, 1.0])
def test_as_many_first_prompts_are_boxes_as_configured(share):
    _, labels = first_prompts(OBJECT, count=2000, box_probability=share)
    is_box = labels[:, 0] == BOX_MIN
    np.testing.assert_array_equal(labels[is_box, 1], BOX_MAX)
    np.testing.assert_array_equal(labels[~is_box, 1], NOT_A_POINT)
    assert binomtest(int(is_box.sum()), len(is_box), share).pvalue > 1e-3


def test_without_noise_the_box_is_that_of_the_mask():
    points, _ = first_prompts(OBJECT, count=5, box_probability=1.0, box_noise=0.0)
    np.testing.assert_array_equal(points[:, :2].reshape(5, 4), np.tile([6, 5, 21, 14], (5, 1)))


@functools.cache
def noisy_boxes(noise, limit, count=4000):
    from samjax.train.tasks.interactive.user import noisy_box

    interaction = config(box_noise=noise, box_noise_limit=limit)

    def boxes(box, last):
        return jax.vmap(lambda key: noisy_box(interaction, key, box, last))(jax.random.split(jax.random.key(2), count))

    return jax.jit(boxes)


def test_box_noise_is_a_tenth_of_the_width_in_x_and_of_the_height_in_y():
    box = np.array([400, 450, 499, 489], np.float32)  # 100 wide, 40 high
    moved = np.asarray(noisy_boxes(0.1, 1e6)(box, np.full(2, 1e6, np.float32))) - box
    for axis, std in enumerate((10, 4, 10, 4)):
        assert kstest(moved[:, axis] / std, "norm").pvalue > 1e-3
        np.testing.assert_allclose(moved[:, axis].std(), std, rtol=0.05)
    correlation = np.corrcoef(moved.T) - np.eye(4)
    assert abs(correlation).max() < 5 / len(moved) ** 0.5


def test_box_noise_is_cut_off_at_its_limit():
    box = np.array([300, 300, 699, 699], np.float32)  # 400 wide: a standard deviation of 40
    moved = np.asarray(noisy_boxes(0.1, 20.0)(box, np.full(2, 1023, np.float32))) - box
    assert (moved.min(0).tolist(), moved.max(0).tolist()) == ([-20] * 4, [20] * 4)
    np.testing.assert_allclose((abs(moved) == 20).mean(), 0.617, atol=0.02)  # beyond half a standard deviation


def test_boxes_end_at_the_photo():
    box = np.array([0, 0, 99, 49], np.float32)  # the whole photo
    moved = np.asarray(noisy_boxes(0.1, 20.0)(box, np.array([99, 49], np.float32)))
    assert (moved >= 0).all()
    assert (moved <= [99, 49, 99, 49]).all()
    np.testing.assert_allclose((moved == box).mean(0), 0.5, atol=0.04)  # half would be outside


def test_noisy_boxes_of_first_prompts_stay_within_the_photo():
    points, _ = first_prompts(INSIDE, box_probability=1.0)
    assert (points[:, :2] >= 0).all()
    assert (points[:, :2] <= [PHOTO[1] - 1, PHOTO[0] - 1]).all()


def test_an_empty_mask_has_no_first_prompt():
    _, labels = first_prompts(NOTHING, count=50)
    assert (labels == ABSENT).all()


def test_a_mask_of_one_pixel_is_prompted_by_it():
    points, labels = first_prompts(rectangle(21, 22, 28, 29), count=50)
    is_box = labels[:, 0] == BOX_MIN
    assert 0 < is_box.sum() < 50
    np.testing.assert_array_equal(points[~is_box, 0], np.tile([28, 21], ((~is_box).sum(), 1)))
    assert abs(points[is_box, :2] - [28, 21]).max() < 0.6  # noise of a tenth of a pixel


def test_a_key_names_its_first_prompt():
    one, same, other = (first_prompts(OBJECT, count=20, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one[0], same[0])
    np.testing.assert_array_equal(one[1], same[1])
    assert not np.array_equal(one[0], other[0])


# The first prompt that was recorded


RECORDED = np.array([7.25, 9.75, 1], np.float32)


@functools.cache
def drawn_recorded(interaction):
    from samjax.train.tasks.interactive.user import first_prompt

    one = jax.vmap(lambda key, target, click: first_prompt(interaction, key, target, RATIO, click), (0, None, None))
    return jax.jit(one)


def recorded_prompts(click, mask=OBJECT, count=2000, **options):
    slots = drawn_recorded(config(**options))(jax.random.split(jax.random.key(0), count), target_of(mask), click)
    return np.asarray(slots.points), np.asarray(slots.labels)


@pytest.mark.parametrize("box_probability", [0.0, 0.5, 1.0])
def test_a_share_of_one_always_shows_the_recorded_click(box_probability):
    points, labels = recorded_prompts(RECORDED, count=200, recorded_share=1.0, box_probability=box_probability)
    np.testing.assert_array_equal(points[:, :2], np.tile([[7.25, 9.75], [0, 0]], (200, 1, 1)))
    np.testing.assert_array_equal(labels, np.tile([FOREGROUND, NOT_A_POINT] + [ABSENT] * 8, (200, 1)))


def test_a_share_shows_the_recorded_click_and_leaves_the_other_prompts_as_they_were():
    points, labels = recorded_prompts(RECORDED, recorded_share=0.3)
    shown = (points[:, 0] == RECORDED[:2]).all(1)
    assert binomtest(int(shown.sum()), len(shown), 0.3).pvalue > 1e-3
    sampled, sampled_labels = first_prompts(OBJECT, count=2000)
    np.testing.assert_array_equal(points[~shown], sampled[~shown])
    np.testing.assert_array_equal(labels[~shown], sampled_labels[~shown])
    # and is drawn apart from whether there would have been a box
    was_box = sampled_labels[:, 0] == BOX_MIN
    assert binomtest(int((shown & was_box).sum()), int(was_box.sum()), 0.3).pvalue > 1e-3


@pytest.mark.parametrize(("click", "share"), [(np.zeros(3, np.float32), 1.0), (RECORDED, 0.0)])
def test_without_a_recorded_click_or_a_share_prompts_are_sampled_as_ever(click, share):
    for ours, sampled in zip(recorded_prompts(click, recorded_share=share), first_prompts(OBJECT, 2000), strict=True):
        np.testing.assert_array_equal(ours, sampled)


def test_an_empty_mask_has_no_recorded_prompt():
    _, labels = recorded_prompts(RECORDED, NOTHING, 50, recorded_share=1.0)
    assert (labels == ABSENT).all()


# Clicks


def test_clicks_are_uniform_over_misses_and_false_positives_and_labelled_so():
    predicted = np.zeros((HEIGHT // RATIO, WIDTH // RATIO), bool)
    predicted[2:6, 3:8] = True  # over the object's right part and beyond, into the padding
    wrong = (pixels_of(predicted) ^ OBJECT) & INSIDE
    points, labels = clicks(predicted, OBJECT, count=40 * int(wrong.sum()))
    assert_uniform(points, wrong)
    x, y = points.T
    np.testing.assert_array_equal(labels, np.where(OBJECT[y, x], FOREGROUND, BACKGROUND))
    assert set(labels) == {FOREGROUND, BACKGROUND}


@pytest.mark.parametrize("predicted", [False, True])
def test_a_prediction_of_nothing_is_clicked_on_the_object_and_one_of_everything_beside_it(predicted):
    points, labels = clicks(np.full((HEIGHT // RATIO, WIDTH // RATIO), predicted), OBJECT, count=10000)
    assert_uniform(points, INSIDE & ~OBJECT if predicted else OBJECT)
    assert (labels == (BACKGROUND if predicted else FOREGROUND)).all()


def test_where_nothing_is_wrong_the_background_is_clicked():
    mask = rectangle(4, 16, 8, 20)  # whole cells
    points, labels = clicks(cells_of(mask), mask, count=10000)
    assert_uniform(points, INSIDE & ~mask)
    assert (labels == BACKGROUND).all()


def test_an_object_that_fills_the_photo_and_is_found_is_not_clicked():
    _, labels = clicks(cells_of(INSIDE), INSIDE, count=50)
    assert (labels == ABSENT).all()
    _, labels = clicks(np.ones_like(cells_of(INSIDE)), INSIDE, count=50)  # the padding, too: it does not count
    assert (labels == ABSENT).all()


def test_an_empty_object_that_is_not_predicted_gets_a_background_click():
    points, labels = clicks(cells_of(NOTHING), NOTHING)
    assert_uniform(points, INSIDE)
    assert (labels == BACKGROUND).all()


def test_one_missed_pixel_is_clicked():
    mask = rectangle(21, 22, 28, 29)
    points, labels = clicks(cells_of(NOTHING), mask, count=50)
    np.testing.assert_array_equal(points, np.tile([28, 21], (50, 1)))
    assert (labels == FOREGROUND).all()


def test_no_click_is_ever_in_the_padding():
    random = np.random.RandomState(0)
    for trial in range(20):
        mask = (random.rand(HEIGHT, WIDTH) < random.rand()) & INSIDE
        points, labels = clicks(random.rand(HEIGHT // RATIO, WIDTH // RATIO) < random.rand(), mask, 100, seed=trial)
        x, y = points[labels != ABSENT].T
        assert len(x)
        assert INSIDE[y, x].all()


def test_a_click_takes_the_next_slot_and_leaves_the_others():
    from samjax.train.tasks.interactive.user import Slots, click

    slots = Slots(jnp.arange(10.0).reshape(5, 2), jnp.array([1, -1, 0, -2, -2], jnp.int32))
    after = click(jax.random.key(0), slots, jnp.int32(1), jnp.asarray(cells_of(NOTHING)), target_of(OBJECT), RATIO)
    kept = [0, 1, 2, 4]
    np.testing.assert_array_equal(after.points[kept, :], slots.points[kept, :])
    np.testing.assert_array_equal(after.labels, [1, -1, 0, 1, -2])
    x, y = np.asarray(after.points[3]).astype(int)
    assert OBJECT[y, x]


def test_a_key_names_its_click():
    one, same, other = (clicks(cells_of(NOTHING), OBJECT, 20, seed=seed)[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


# Which passes get a click


@functools.cache
def schedules(interaction, count=3000):
    from samjax.train.tasks.interactive.user import click_schedule

    keys = jax.random.split(jax.random.key(6), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: click_schedule(interaction, key)))(keys))


@pytest.mark.parametrize(
    ("corrections", "refinements"), [(8, 2), (3, 1), (2, 4), (1, 1), (1, 2), (5, 0), (0, 2), (0, 0)]
)
def test_every_schedule_has_all_clicks_and_ends_with_a_refinement(corrections, refinements):
    drawn = schedules(config(corrections=corrections, refinements=refinements), 200)
    assert drawn.shape[1] == config(corrections=corrections, refinements=refinements).passes - 1
    assert (drawn.sum(1) == corrections).all()
    if corrections and refinements:
        assert not drawn[:, -1].any()
        assert drawn[:, -2].all()  # each refinement follows a click, the last one the last click


def test_the_other_refinement_is_equally_likely_before_each_of_the_clicks():
    drawn = schedules(config())
    assert drawn.shape == (3000, 10)
    where = np.argwhere(~drawn[:, :-1])
    np.testing.assert_array_equal(where[:, 0], np.arange(3000))  # one in each
    assert chisquare(np.bincount(where[:, 1], minlength=8)).pvalue > 1e-3


def test_slots_suffice_for_every_click():
    points, labels = first_prompts(OBJECT, count=3, corrections=4)
    assert points.shape == (3, 2 + 4, 2)
    assert labels.shape == (3, 2 + 4)
    assert (labels[:, 2:] == ABSENT).all()
