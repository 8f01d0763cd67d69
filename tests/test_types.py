import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samjax import Prediction, Prompts
from samjax.types import PROMPT_BUCKETS, TOKEN_BUCKETS, bucket

LABELS = st.sampled_from([0, 1])
COORDINATE = st.floats(-100, 5000, width=32)


@st.composite
def prompt_sets(draw, count: int | None = None):
    """Arguments of `Prompts.of`: ragged points, with or without boxes."""
    count = count or draw(st.integers(1, 9))
    points = draw(st.lists(st.lists(st.tuples(COORDINATE, COORDINATE), max_size=20), min_size=count, max_size=count))
    labels = [draw(st.lists(LABELS, min_size=len(row), max_size=len(row))) for row in points]
    corner, extent = st.floats(0, 1000, width=16), st.floats(1, 1000, width=16)
    box = st.none() | st.tuples(corner, corner, extent, extent).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    return {"points": points, "labels": labels, "boxes": draw(st.lists(box, min_size=count, max_size=count))}


@given(prompt_sets())
def test_prompts_hold_what_was_given(given_prompts):
    prompts = Prompts.of(**given_prompts)
    rows = zip(given_prompts["points"], given_prompts["labels"], given_prompts["boxes"], strict=True)
    for number, (points, labels, box) in enumerate(rows):
        expected = list(zip(map(tuple, points), labels, strict=True))
        if box is None:
            expected.append(((0.0, 0.0), -1))
        if box is not None:
            expected += [(box[:2], 2), (box[2:], 3)]
        present = prompts.labels[number] != -2
        assert present.sum() == len(expected)
        assert prompts.labels[number, : len(expected)].tolist() == [label for _, label in expected]
        np.testing.assert_array_equal(
            prompts.points[number, : len(expected)], np.array([xy for xy, _ in expected], np.float32).reshape(-1, 2)
        )
    assert prompts.valid.sum() == len(given_prompts["points"])


@given(prompt_sets())
def test_sizes_are_buckets(given_prompts):
    prompts = Prompts.of(**given_prompts)
    assert prompts.labels.shape[0] in PROMPT_BUCKETS
    assert prompts.labels.shape[1] in TOKEN_BUCKETS
    assert prompts.points.shape == (*prompts.labels.shape, 2)


@given(size=st.integers(0, 2000), sizes=st.sampled_from([TOKEN_BUCKETS, PROMPT_BUCKETS]))
def test_a_bucket_holds_its_size_and_wastes_little(size, sizes):
    assert bucket(size, sizes) >= size
    assert bucket(size, sizes) <= max(2 * size + 1, sizes[0])
    assert bucket(bucket(size, sizes), sizes) == bucket(size, sizes)


@given(st.lists(prompt_sets(), min_size=1, max_size=3))
def test_a_batch_holds_the_prompts_of_each_image(images):
    singles = [Prompts.of(**prompts) for prompts in images]
    batch = Prompts.batch(singles)
    for number, single in enumerate(singles):
        rows, tokens = single.labels.shape
        np.testing.assert_array_equal(batch.points[number, :rows, :tokens], single.points)
        np.testing.assert_array_equal(batch.labels[number, :rows, :tokens], single.labels)
        np.testing.assert_array_equal(batch.valid[number, :rows], single.valid)
        assert (batch.labels[number, rows:] == -2).all()
        assert (batch.labels[number, :, tokens:] == -2).all()
        assert not batch.valid[number, rows:].any()


def test_points_without_a_box_get_one_padding_point():
    assert Prompts.of([[[1, 2], [3, 4]]]).labels[0].tolist() == [1, 1, -1]


def test_a_box_stands_in_for_the_padding_point():
    prompts = Prompts.of([[[9, 9]]], [[0]], [[1, 2, 3, 4]])
    assert prompts.labels[0].tolist() == [0, 2, 3]
    assert prompts.points[0].tolist() == [[9, 9], [1, 2], [3, 4]]


def test_a_mask_alone_is_a_prompt_without_tokens():
    prompts = Prompts.of(masks=[np.zeros((8, 8))])
    assert (prompts.labels == -2).all()
    assert prompts.has_mask.tolist() == [True]


def test_masks_may_be_given_for_some_prompts_only():
    prompts = Prompts.of([[[1, 2]], [[3, 4]]], masks=[None, np.ones((1, 8, 8))])
    assert prompts.has_mask.tolist() == [False, True]
    assert prompts.masks[1].tolist() == np.ones((8, 8)).tolist()


def test_a_batch_may_mix_images_with_and_without_masks():
    batch = Prompts.batch([Prompts.of([[[1, 2]]]), Prompts.of(masks=[np.ones((8, 8))] * 2)])
    assert batch.has_mask.tolist() == [[False, False], [True, True]]
    assert batch.masks.shape == (2, 2, 8, 8)


def test_arrays_are_as_good_as_lists():
    points, labels = np.arange(12).reshape(2, 3, 2), np.array([[1, 0, 1], [0, 0, 1]])
    by_array, by_list = Prompts.of(points, labels), Prompts.of(points.tolist(), labels.tolist())
    jax.tree.map(np.testing.assert_array_equal, by_array, by_list)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "at least one of points, boxes and masks"),
        ({"points": []}, "no prompt was given"),
        ({"points": [[[1, 2]], [[3, 4]]], "boxes": [[0, 0, 1, 1]]}, r"one entry per prompt each, got .*'points': 2"),
        ({"labels": [[1]]}, "labels were given without points"),
        ({"points": [None], "labels": [[1]], "boxes": [[0, 0, 1, 1]]}, "prompt 0 has 1 labels and no points"),
        ({"points": [[[1, 2]]], "labels": [[1, 0]]}, r"prompt 0 has 1 points and labels of shape \(2,\)"),
        ({"points": [[[1, 2]]], "labels": [[2]]}, r"labels of prompt 0 must be 1 \(foreground\), 0 .* got \[2\]"),
        ({"points": [[1, 2]]}, r"points of prompt 0 must have shape \(count, 2\) as \(x, y\), got \(2,\)"),
        ({"points": [[[1, 2, 3]]]}, r"must have shape \(count, 2\) as \(x, y\), got \(1, 3\)"),
        ({"points": [[[1, 2]], [[np.nan, 0]]]}, "points of prompt 1 must be finite"),
        ({"boxes": [[0, 0, np.inf, 1]]}, "box of prompt 0 must be finite"),
        ({"boxes": [[0, 0, 1]]}, r"must be \(x0, y0, x1, y1\), got shape \(3,\)"),
        ({"boxes": [[5, 0, 5, 9]]}, r"x0 < x1 and y0 < y1, got \[5.0, 0.0, 5.0, 9.0\].*not \(x, y, width, height\)"),
        ({"boxes": [[0, 9, 5, 3]]}, "x0 < x1 and y0 < y1"),
        ({"masks": [np.full((8, 8), np.nan)]}, "mask of prompt 0 must be finite"),
        ({"masks": [np.zeros((8, 8)), np.zeros((4, 4))]}, r"logits of one size, got shapes \[\(4, 4\), \(8, 8\)\]"),
        ({"masks": [np.zeros((3, 8, 8))]}, "must be 2-d logits"),
    ],
)
def test_bad_prompts_are_refused_with_a_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        Prompts.of(**arguments)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        Prompts.batch([])


def test_masks_of_two_sizes_in_a_batch_are_refused():
    with pytest.raises(ValueError, match="must all have the size"):
        Prompts.batch([Prompts.of(masks=[np.zeros((side, side))]) for side in (4, 8)])


def test_prompts_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Prompts.of([[[1, 2]]]).points = None


def test_types_are_pytrees_with_named_leaves():
    leaves = jax.tree_util.tree_leaves_with_path(Prompts.of([[[1, 2]]]))
    assert [jax.tree_util.keystr(path) for path, _ in leaves] == [".points", ".labels", ".valid"]


def test_trees_of_things_that_are_no_arrays_can_be_built():
    names = jax.tree_util.tree_map_with_path(lambda path, _: jax.tree_util.keystr(path), Prompts.of([[[1, 2]]]))
    assert names.points == ".points"


def test_a_prediction_is_trimmed_to_its_prompts():
    prediction = Prediction(
        jax.numpy.arange(2 * 4 * 4, dtype=jax.numpy.float32).reshape(2, 4, 1, 2, 2),
        jax.numpy.zeros((2, 4, 1)),
        jax.numpy.array([[True, True, True, False], [True, False, False, False]]),
    )
    assert prediction[0].logits.shape == (3, 1, 2, 2)
    assert prediction[1].logits.tolist() == prediction.logits[1, :1].tolist()


def test_annotations_are_checked_at_run_time():
    """Of the whole package, through pytest's import hook; here on one class."""
    with pytest.raises(TypeError, match="labels"):
        Prompts(np.zeros((1, 3, 2), np.float32), np.zeros((1, 3), np.int64), np.ones(1, bool))


def test_an_embedding_of_what_encode_gives_as_a_whole_is_refused(run_python):
    code = """
import numpy as np
from samjax.types import Embedding, Features
try:
    Embedding(Features(np.zeros((2, 3, 4))), np.zeros(2), np.zeros(2))
except TypeError as error:
    print(error)
"""
    assert "pass features.image (and taps=features.taps)" in run_python(code)
