"""Stored embeddings are found again by the same photo and model, and by nothing else."""

import dataclasses

import jax
import numpy as np
import pytest
from example_models import random_photo, random_sam

from samjax.embeddings import EmbeddingStore
from samjax.ops.attention import Plain


def store_one(store, sam, photo):
    embedding = sam.encode(photo)
    store.put(photo, embedding)
    return embedding


def test_a_stored_embedding_is_the_one_that_was_made(sam, tmp_path):
    photo, store = random_photo(60, 90), EmbeddingStore(tmp_path, sam)
    made = store_one(store, sam, photo)
    found = EmbeddingStore(tmp_path, sam).get(photo)
    jax.tree.map(np.testing.assert_array_equal, found, made)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_bfloat16_features_survive(sam, tmp_path):
    store = EmbeddingStore(tmp_path, sam.with_dtype("bfloat16"))
    made = store_one(store, sam.with_dtype("bfloat16"), random_photo(60, 90))
    assert made.features.dtype == "bfloat16"
    jax.tree.map(np.testing.assert_array_equal, store.get(random_photo(60, 90)), made)


def test_another_photo_model_size_or_dtype_finds_nothing(sam, tmp_path):
    photo = random_photo(60, 90)
    store_one(EmbeddingStore(tmp_path, sam), sam, photo)
    assert EmbeddingStore(tmp_path, sam).get(photo) is not None
    assert EmbeddingStore(tmp_path, sam).get(photo.transpose(1, 0, 2)) is None
    for other in (random_sam(seed=1), sam.with_image_size(72), sam.with_dtype("bfloat16")):
        assert EmbeddingStore(tmp_path, other).get(photo) is None


def test_the_way_of_computing_is_not_part_of_the_key(sam, tmp_path):
    photo = random_photo(60, 90)
    store_one(EmbeddingStore(tmp_path, sam), sam, photo)
    plain = dataclasses.replace(sam, execution=dataclasses.replace(sam.execution, attention=Plain()))
    assert EmbeddingStore(tmp_path, plain).get(photo) is not None


def test_a_damaged_file_is_named(sam, tmp_path):
    store, photo = EmbeddingStore(tmp_path, sam), random_photo(60, 90)
    store_one(store, sam, photo)
    path = store.path(photo)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        store.get(photo)
