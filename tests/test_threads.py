"""One `Sam` for any number of threads; a `SamPredictor` for one at a time, which it says."""

import concurrent.futures
import threading

import jax
import numpy as np
import pytest
from example_models import random_photo

from samjax import Prompts, Sam, SamPredictor, transforms
from samjax.embeddings import EmbeddingStore

THREADS = 8
SIZES = [(60 + i, 90 - i) for i in range(THREADS)]
POINTS = [[[10 + 5 * i, 20 + 3 * i]] for i in range(THREADS)]


def in_threads(function):
    """`function` of 0, 1, ..., 7 in as many threads, which all start at the same moment."""
    together = threading.Barrier(THREADS)

    def start(i):
        together.wait()
        return function(i)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, range(THREADS)))


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def photos():
    return [random_photo(*size, seed=i) for i, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def serial(sam, photos):
    """What a fresh predictor for each photo answers, one after the other."""

    def answer(photo, points):
        predictor = SamPredictor(sam)
        predictor.set_image(photo)
        return predictor.predict(np.array(points), np.ones(1, int), return_logits=True)

    return [answer(*each) for each in zip(photos, POINTS, strict=True)]


def test_threads_that_share_a_model_get_the_answers_of_one_thread(sam, photos, serial):
    def answer(i):
        embedding = sam.encode(photos[i])
        prediction = sam.predict(embedding, Prompts.of([POINTS[i]]))
        return sam.masks(prediction, embedding, threshold=None)[0], prediction.iou[0], prediction.logits[0]

    for _ in range(3):
        transforms.upscaling.cache_clear()
        assert_equal(in_threads(answer), serial)


def test_predictors_of_many_threads_share_a_model(sam, photos, serial):
    def answer(i):
        predictor = SamPredictor(sam)
        for number in (i, (i + 1) % THREADS, i):
            predictor.set_image(photos[number])
        return predictor.predict(np.array(POINTS[i]), np.ones(1, int), return_logits=True)

    assert_equal(in_threads(answer), serial)


def test_threads_share_a_store_of_embeddings(sam, photos, tmp_path):
    store, embeddings = EmbeddingStore(tmp_path, sam), [sam.encode(photo) for photo in photos]

    def put_and_get(i):
        for number in (0, i):  # all of them the first
            store.put(photos[number], embeddings[number])
        return store.get(photos[0]), store.get(photos[i])

    assert_equal(in_threads(put_and_get), [(embeddings[0], embedding) for embedding in embeddings])
    assert len(list(tmp_path.iterdir())) == THREADS


@pytest.fixture
def paused(sam, photos, monkeypatch):
    """(A predictor, a thread that is in the middle of its `set_image` until it is asked for the result)."""
    started, resume, encode = threading.Event(), threading.Event(), Sam.encode
    predictor = SamPredictor(sam)
    predictor.set_image(photos[0])

    def slow(sam, image):
        if threading.current_thread() is not threading.main_thread():
            started.set()
            resume.wait(60)
        return encode(sam, image)

    monkeypatch.setattr(Sam, "encode", slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        setting = pool.submit(predictor.set_image, photos[1])
        try:
            assert started.wait(60)
            yield predictor, lambda: (resume.set(), setting.result())
        finally:
            resume.set()


@pytest.mark.parametrize("ask", [SamPredictor.predict, SamPredictor.predict_batch, SamPredictor.get_image_embedding])
def test_asking_while_another_thread_sets_the_photo_is_an_error(paused, photos, ask):
    predictor, finish = paused
    with pytest.raises(RuntimeError, match=r"another thread is in set_image .* make one for each thread"):
        ask(predictor)
    assert (predictor.is_image_set, predictor.features, predictor.original_size) == (False, None, None)
    finish()
    assert predictor.original_size == photos[1].shape[:2]
    assert predictor.predict()[0].shape[1:] == photos[1].shape[:2]


def test_of_two_threads_that_set_a_photo_the_later_one_wins_and_the_other_is_told(paused, photos):
    predictor, finish = paused
    predictor.set_image(photos[2])
    with pytest.raises(RuntimeError, match="another thread changed this predictor's photo"):
        finish()
    assert predictor.original_size == photos[2].shape[:2]
    assert_equal(predictor.embedding, predictor.model.sam.encode(photos[2]))


def test_a_photo_that_cannot_be_read_leaves_none_set(sam, photos):
    predictor = SamPredictor(sam)
    predictor.set_image(photos[0])
    with pytest.raises(ValueError, match="an image must be an array"):
        predictor.set_image(np.zeros(3))
    with pytest.raises(RuntimeError, match="An image must be set"):
        predictor.predict()


def test_an_answer_keeps_to_the_photo_that_was_set_when_it_was_asked(sam, photos, monkeypatch):
    """Its masks have that photo's size, though another one is set before they are upscaled."""
    predictor, predict = SamPredictor(sam), Sam.predict
    predictor.set_image(photos[0])

    def predict_then_set(sam, *args, **kwargs):
        prediction = predict(sam, *args, **kwargs)
        predictor.set_image(photos[7])
        return prediction

    monkeypatch.setattr(Sam, "predict", predict_then_set)
    assert predictor.predict()[0].shape == (3, *SIZES[0])
    assert predictor.original_size == SIZES[7]
