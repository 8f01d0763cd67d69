"""SamPredictor has the interface of segment_anything's."""

import jax
import ml_dtypes
import numpy as np
import pytest
from example_compiling import compiled_programs
from example_models import random_photo
from PIL import Image

from samjax import Prompts, Sam, SamPredictor, convert, read_image, sam_model_registry
from samjax.drop_in.predictor import ResizeLongestSide

POINT, LABEL = np.array([[40, 30]]), np.array([1])


@pytest.fixture(scope="module")
def predictor(sam):
    predictor = SamPredictor(sam)
    predictor.set_image(random_photo(60, 90))
    return predictor


@pytest.mark.parametrize(("multimask", "count"), [(True, 3), (False, 1)])
def test_predict_returns_masks_of_the_photo_scores_and_low_resolution_logits(predictor, multimask, count):
    masks, scores, logits = predictor.predict(POINT, LABEL, multimask_output=multimask)
    assert masks.shape == (count, 60, 90)
    assert masks.dtype == bool
    assert scores.shape == (count,)
    assert logits.shape == (count, 32, 32)
    assert all(isinstance(array, np.ndarray) for array in (masks, scores, logits))


def test_return_logits_gives_the_numbers_that_the_masks_threshold(predictor):
    masks, _, _ = predictor.predict(POINT, LABEL)
    logits, _, _ = predictor.predict(POINT, LABEL, return_logits=True)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits > 0, masks)


def test_an_earlier_mask_can_be_the_next_prompt(predictor):
    _, _, logits = predictor.predict(POINT, LABEL)
    refined, _, _ = predictor.predict(POINT, LABEL, mask_input=logits[:1], multimask_output=False, return_logits=True)
    plain, _, _ = predictor.predict(POINT, LABEL, multimask_output=False, return_logits=True)
    assert np.abs(refined - plain).max() > 1e-3


def test_a_box_may_have_one_or_two_axes(predictor):
    flat, _, _ = predictor.predict(box=np.array([10, 10, 50, 40]), return_logits=True)
    nested, _, _ = predictor.predict(box=np.array([[10, 10, 50, 40]]), return_logits=True)
    np.testing.assert_array_equal(flat, nested)


def test_an_image_of_pillows_is_a_photo_as_its_file_is(sam, tmp_path):
    for mode in ("P", "CMYK"):
        path = tmp_path / {"P": "photo.png", "CMYK": "photo.jpg"}[mode]
        Image.fromarray(random_photo(60, 90)).convert(mode).save(path)
        expected = sam.encode(read_image(path))
        predictor = SamPredictor(sam)
        predictor.set_image(Image.open(path))
        for embedding in (sam.encode(Image.open(path)), predictor.embedding):
            np.testing.assert_array_equal(embedding.features, expected.features)
    with pytest.raises(ValueError, match="image_format is for arrays"):
        predictor.set_image(Image.new("RGB", (90, 60)), "BGR")


def test_no_prompt_at_all_is_answered_as_in_the_reference(predictor):
    masks, _, _ = predictor.predict()
    assert masks.shape == (3, 60, 90)


def test_no_tensors_at_all_are_answered_too(predictor):
    np.testing.assert_array_equal(predictor.predict_torch(None, None)[0][0], predictor.predict()[0])


def test_a_batch_of_boxes_gives_what_each_box_gives_alone(predictor):
    boxes = np.array([[10, 10, 50, 40], [0, 0, 89, 59], [30, 5, 60, 55]])
    masks, scores, logits = predictor.predict_batch(boxes=boxes, return_logits=True)
    assert masks.shape == (3, 3, 60, 90)
    for i, box in enumerate(boxes):
        alone = predictor.predict(box=box, return_logits=True)
        for batched, single in zip((masks[i], scores[i], logits[i]), alone, strict=True):
            np.testing.assert_allclose(batched, single, rtol=1e-5, atol=1e-5)


def test_point_sets_of_a_batch_may_differ_in_size(predictor):
    sets = [[[40, 30]], [[40, 30], [10, 50], [80, 5]]]
    masks, _, _ = predictor.predict_batch(sets, [[1], [1, 0, 0]], return_logits=True)
    alone, _, _ = predictor.predict(np.array(sets[1]), np.array([1, 0, 0]), return_logits=True)
    np.testing.assert_allclose(masks[1], alone, rtol=1e-5, atol=1e-5)


def test_bgr_photos_are_turned_around(sam, predictor):
    other = SamPredictor(sam)
    other.set_image(random_photo(60, 90)[:, :, ::-1], image_format="BGR")
    np.testing.assert_array_equal(other.get_image_embedding(), predictor.get_image_embedding())
    with pytest.raises(ValueError, match="RGB or BGR"):
        other.set_image(random_photo(60, 90), image_format="GBR")


def test_the_embedding_has_the_references_layout(predictor, sam):
    assert predictor.get_image_embedding().shape == (1, 64, 8, 8)
    np.testing.assert_array_equal(predictor.features[0].transpose(1, 2, 0), sam.encode(random_photo(60, 90)).features)
    assert predictor.original_size == (60, 90)
    assert predictor.input_size == (43, 64)


NONE_LEFT = np.zeros((0, 2)), np.zeros(0)


def test_points_that_are_none_get_the_padding_point_as_in_the_reference(predictor):
    """What a program asks after the last click has been undone."""
    _, scores, logits = predictor.predict(*NONE_LEFT)
    padding_point = Prompts(np.zeros((1, 3, 2), np.float32), np.array([[-1, -2, -2]], np.int32), np.ones(1, bool))
    np.testing.assert_array_equal(logits, predictor.model.sam.predict(predictor.embedding, padding_point).logits[0])
    assert np.abs(scores - predictor.predict()[1]).max() > 1e-4
    in_input_frame = predictor.predict_torch(np.zeros((1, 0, 2)), np.zeros((1, 0)))
    np.testing.assert_array_equal(in_input_frame[2][0], logits)


def test_points_that_are_none_with_a_mask_or_a_box(predictor):
    mask = predictor.predict(POINT, LABEL)[2][:1]
    with_padding, alone = predictor.predict(*NONE_LEFT, mask_input=mask), predictor.predict(mask_input=mask)
    assert np.abs(with_padding[1] - alone[1]).max() > 1e-4
    box = np.array([10, 10, 50, 40])
    np.testing.assert_array_equal(predictor.predict(*NONE_LEFT, box)[2], predictor.predict(box=box)[2])


def test_boxes_of_more_axes_and_labels_without_points_are_taken_as_in_the_reference(predictor):
    boxes = np.array([[7, 7, 35, 28], [3, 2, 60, 40]])
    expected = predictor.predict_torch(None, None, boxes)
    for others in (boxes[:, None], boxes.reshape(2, 2, 2)):
        found = predictor.predict_torch(None, np.ones((2, 1)), others)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    jax.tree.map(
        np.testing.assert_array_equal,
        predictor.predict(point_labels=LABEL, box=boxes[0].reshape(2, 2)),
        predictor.predict(box=boxes[0]),
    )


def test_coordinates_of_half_precision_are_moved_by_half_a_pixel_in_it_as_in_the_reference(predictor):
    """31.625 + 0.5 is no bfloat16; 32 is the nearest."""
    coords = np.array([[[31.625, 20.0]]], ml_dtypes.bfloat16)
    found = predictor.predict_torch(coords, LABEL[None])
    expected = predictor.predict_torch(np.array([[[31.5, 20.0]]]), LABEL[None])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_one_mask_may_serve_all_boxes(predictor):
    boxes, mask = np.array([[7, 7, 35, 28], [3, 2, 60, 40]]), predictor.predict(POINT, LABEL)[2][None, :1]
    found = predictor.predict_torch(None, None, boxes, mask)
    expected = predictor.predict_torch(None, None, boxes, np.repeat(mask, 2, 0))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    swapped = predictor.predict_torch(None, None, boxes[:1], np.concatenate([mask, -mask]))
    np.testing.assert_array_equal(swapped[2][0], found[2][0])


def test_a_prompt_before_a_photo_and_after_reset_is_an_error(sam):
    predictor = SamPredictor(sam)
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(POINT, LABEL)
    predictor.set_image(random_photo(60, 90))
    predictor.reset_image()
    assert not predictor.is_image_set
    assert predictor.features is None
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.get_image_embedding()


def test_points_without_labels_are_an_error(predictor):
    with pytest.raises(ValueError, match="point_labels"):
        predictor.predict(POINT)


def test_coordinates_already_in_the_input_frame_give_the_same_masks(predictor):
    coords = predictor.transform.apply_coords(POINT[None], predictor.original_size)
    masks, scores, _ = predictor.predict_torch(coords, LABEL[None], return_logits=True)
    expected = predictor.predict(POINT, LABEL, return_logits=True)
    assert masks.shape == (1, 3, 60, 90)
    np.testing.assert_allclose(masks[0], expected[0], rtol=1e-4, atol=1e-5)  # the frame is rounded to float32 once more
    np.testing.assert_allclose(scores[0], expected[1], rtol=1e-4, atol=1e-5)


def test_resize_longest_side_scales_each_axis_by_its_rounded_size():
    transform = ResizeLongestSide(1024)
    assert transform.get_preprocess_shape(427, 640, 1024) == (683, 1024)
    np.testing.assert_allclose(transform.apply_coords([[640, 427]], (427, 640)), [[1024, 683]])
    assert transform.apply_boxes([0, 0, 640, 427], (427, 640)).shape == (1, 4)
    assert transform.apply_image(np.zeros((427, 640, 3), np.uint8)).shape == (683, 1024, 3)


def test_the_registry_loads_a_checkpoint_of_its_variant_only(tmp_path):
    tiny = Sam.init("vit_tiny", jax.random.key(1))
    convert.write(tmp_path / "tiny.pth", tiny.config, tiny.params)
    model = sam_model_registry["vit_tiny"](checkpoint=str(tmp_path / "tiny.pth"))
    jax.tree.map(np.testing.assert_array_equal, model.sam.params, tiny.params)
    assert model.image_encoder.img_size == 256
    with pytest.raises(ValueError, match="vit_tiny model, not vit_b"):
        sam_model_registry["vit_b"](checkpoint=tmp_path / "tiny.pth")


def test_a_registry_model_moves_to_devices_that_exist(sam):
    model = SamPredictor(sam).model
    assert model.to(device="cpu") is model
    assert model.eval() is model
    for absent in ("tpu", "cpu:99", "cuda:0"):
        with pytest.raises(ValueError, match=f"there is no device '{absent}'"):
            model.to(device=absent)


def test_the_predictor_answers_what_the_functions_underneath_answer(predictor, sam, embedding):
    prediction = sam.predict(embedding, Prompts.of([[[40, 30]]]))
    _, scores, logits = predictor.predict(POINT, LABEL)
    np.testing.assert_array_equal(logits, prediction.logits[0])
    np.testing.assert_array_equal(scores, prediction.iou[0])


def test_the_number_of_prompts_compiles_nothing_but_the_decoders_buckets(sam):
    predictor = SamPredictor(sam)
    predictor.set_image(random_photo(60, 90))
    for count in (1, 2, 4, 8):
        predictor.predict_batch(boxes=[[10, 10, 50, 40]] * count)

    def use():
        for count in range(1, 9):
            predictor.predict_batch(boxes=[[10, 10, 50, 40]] * count)

    assert compiled_programs(use) == []
