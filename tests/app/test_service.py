"""Answers of the service are the library's, bit for bit."""

import dataclasses

import numpy as np
import pytest
from example_app import id_of
from example_compiling import compiled_programs


@pytest.fixture
def opened(folder, tmp_path):
    """a.png as the library opens it."""
    from samjax.app.library import Library

    return Library(str(folder), tmp_path / "out").read(id_of("a.png"))


def steps(*given: dict):
    from samjax.app.steps import steps_from_json

    return steps_from_json(list(given))


POINT = {"points": [[30, 20, 1], [70.5, 50.25, 0]]}
BOX = {"box": [10, 5, 60, 50.5]}


def by_hand(sam, photo, step, logits=None):
    """A step with nothing but the library's own functions."""
    from samjax import Prompts

    prompts = Prompts.of(
        [[point[:2] for point in step.points]] if step.points else None,
        [[point[2] for point in step.points]] if step.points else None,
        [step.box] if step.box else None,
        None if logits is None else [logits],
    )
    embedding = sam.encode(photo)
    prediction = sam.predict(embedding, prompts, multimask=step.multimask)
    return prediction, sam.masks(prediction, embedding)[0]


@pytest.mark.parametrize("asked", [POINT, BOX, {**POINT, **BOX}, {**POINT, "multimask": False}])
def test_a_step_is_predict_and_masks(service, sam, opened, asked):
    from samjax.ops.rle import encode_rle

    (step,) = steps(asked)
    answer = service.answer(opened, lambda: opened, (step,))
    prediction, masks = by_hand(sam, opened.rgb, step)
    np.testing.assert_array_equal(answer.logits, prediction.logits[0])
    np.testing.assert_array_equal(answer.iou, prediction.iou[0])
    given = service.masks(opened.size, answer)
    assert [mask.rle for mask in given] == [encode_rle(mask) for mask in masks]
    assert [mask.area for mask in given] == [mask.sum() for mask in masks]


def test_refining_hands_the_chosen_logits_on(service, sam, opened):
    chain = steps({**POINT, "chosen": 2}, {**BOX, "refine": True, "chosen": 1}, {**POINT, "refine": True})
    answer = service.answer(opened, lambda: opened, chain)
    logits = None
    for step in chain:
        prediction, _ = by_hand(sam, opened.rgb, step, logits)
        logits = prediction.logits[0, step.chosen]
    np.testing.assert_array_equal(answer.logits, prediction.logits[0])
    np.testing.assert_array_equal(answer.iou, prediction.iou[0])


def test_a_drawn_mask_is_a_mask_prompt(service, sam, opened):
    from samjax import mask_prompt
    from samjax.ops.rle import encode_rle

    mask = np.zeros(opened.size, bool)
    mask[10:40, 20:60] = True
    (step,) = steps({"mask": {"rle": encode_rle(mask)}, **POINT})
    prediction, _ = by_hand(sam, opened.rgb, step, mask_prompt(mask, sam.config))
    np.testing.assert_array_equal(service.answer(opened, lambda: opened, (step,)).logits, prediction.logits[0])


def test_a_further_click_costs_one_run_of_the_decoder(service, opened, monkeypatch):
    from samjax.sam import Sam

    calls = []
    predict = Sam.predict
    monkeypatch.setattr(Sam, "predict", lambda *given, **more: calls.append(1) or predict(*given, **more))
    chain = [POINT]
    for length in range(1, 5):
        service.answer(opened, lambda: opened, steps(*chain))
        assert len(calls) == length
        chain.append({**POINT, "refine": True})
    service.answer(opened, lambda: opened, steps({**POINT, "chosen": 1}))  # another choice is no other answer
    assert len(calls) == 4
    service.answer(opened, lambda: opened, steps(BOX, POINT))  # a step that does not refine needs none before it
    assert len(calls) == 4


def test_other_photos_have_other_answers(service, opened):
    other = dataclasses.replace(opened, hash="other", rgb=255 - opened.rgb)
    first, second = (service.answer(photo, lambda photo=photo: photo, steps(POINT)) for photo in (opened, other))
    assert (first.logits != second.logits).any()


def test_a_photo_is_embedded_once_and_found_on_disk_by_another_server(service, sam, opened, tmp_path, monkeypatch):
    from samjax.app.embeddings import BoundedStore
    from samjax.app.service import Service
    from samjax.sam import Sam

    assert not service.is_embedded(opened.hash)
    first = service.embed(opened, lambda: opened)
    assert service.is_embedded(opened.hash)
    monkeypatch.setattr(Sam, "encode", None)
    again = Service(sam, "small", BoundedStore(tmp_path / "embeddings", sam))
    for other in (service, again):
        found = other.embed(opened, lambda: opened)
        np.testing.assert_array_equal(found.features, first.features)


@pytest.mark.parametrize(
    "asked",
    [
        *({"box": box} for box in ([-1, 0, 5, 5], [0, -0.6, 5, 5], [0, 0, 90.1, 5], [0, 0, 5, 61])),
        *({"points": [[*point, 1]]} for point in ([-0.6, 3], [3, -0.6], [89.6, 3], [90, 3], [3, 59.6])),
    ],
)
def test_places_outside_the_photo_are_refused(service, opened, asked):
    from samjax.app.steps import BadRequest

    with pytest.raises(BadRequest, match=r"outside the photo, which has 90 x 60 pixels: .* to \(89, 59\)"):
        service.answer(opened, lambda: opened, steps(asked))


@pytest.mark.parametrize(
    "asked",
    [
        *({"points": [[-0.5, -0.5, 1]]}, {"points": [[89.5, 59.5, 1]]}),
        *({"box": [-0.5, -0.5, 89.5, 59.5]}, {"box": [0, 0, 90, 60]}),
    ],
)
def test_integers_name_pixels_so_that_edges_are_half_a_pixel_away(service, opened, asked):
    assert len(service.answer(opened, lambda: opened, steps(asked)).iou) == 3


def test_points_and_boxes_name_pixels_and_what_is_drawn_counts_edges(service, opened):
    """One click in the middle of pixel (3, 4), said in each way: the decoder's prompt is at 3.5, 4.5 of the photo."""
    from samjax import Prompts
    from samjax.app.drawn import drawn_mask
    from samjax.app.steps import DrawnMask, Stroke

    (drawn,) = np.argwhere(drawn_mask(DrawnMask(strokes=(Stroke(((3.5, 4.5),), 0.6),)), opened.size))
    assert drawn.tolist() == [4, 3]
    answer = service.answer(opened, lambda: opened, steps({"points": [[3, 4, 1]]}))
    expected = service.sam.predict(service.sam.encode(opened.rgb), Prompts.of([[(3, 4)]]))
    np.testing.assert_array_equal(answer.logits, expected.logits[0])


def test_a_choice_among_too_few_is_refused(service, opened):
    from samjax.app.steps import BadRequest

    with pytest.raises(BadRequest, match="chosen is 1, and there are 1"):
        service.answer(opened, lambda: opened, steps({**POINT, "multimask": False, "chosen": 1}))
    with pytest.raises(BadRequest, match="chosen is 3, and there are 3"):
        service.answer(opened, lambda: opened, steps({**POINT, "chosen": 3}, {**POINT, "refine": True}))


@pytest.mark.parametrize("where", [np.s_[:0, :0], np.s_[:, :], np.s_[7:8, 3:4], np.s_[:, 5:], np.s_[4:, :2]])
def test_masks_are_encoded_as_everywhere(where):
    from samjax.app.service import _encoded
    from samjax.ops.rle import encode_rle

    mask = np.zeros((20, 30), bool)
    mask[where] = True
    assert _encoded(mask) == encode_rle(mask)


class TestOnTheScreen:
    def test_a_mask_of_a_large_photo_is_the_exact_one_made_smaller(self, service, sam, opened):
        """Area-averaged, the exact mask is more than half where the small one is foreground, but for the edge."""
        from samjax import transforms
        from samjax.ops.rle import decode_rle

        answer = service.answer(opened, lambda: opened, steps(POINT))
        size = 1196, 1800
        fitted = [transforms.input_size(one, sam.config.image_size) for one in (size, (199, 300))]
        assert fitted == [(43, 64), (42, 64)]  # the small one's own would move the mask
        for number, mask in enumerate(service.masks(size, answer, max_side=300)):
            small = decode_rle(mask.rle)
            assert small.shape == (199, 300)
            exact = transforms.upscale_masks(answer.logits[number], size, sam.config)
            y, x = ((np.arange(side) + 0.5) * full / side for side, full in zip(small.shape, size, strict=True))
            at_centres = exact[y.astype(int)][:, x.astype(int)]
            assert (small != at_centres).mean() < 0.01
            assert mask.area == pytest.approx(exact.sum(), rel=0.02)
            rows, columns = np.flatnonzero(exact.any(1)), np.flatnonzero(exact.any(0))
            expected = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            assert np.abs(np.subtract(mask.box, expected)).max() <= 12

    def test_it_is_in_pixels_of_the_photo(self, service, sam):
        import shapely

        from samjax.app.service import Answer

        y, x = np.mgrid[: sam.config.mask_size[0], : sam.config.mask_size[1]].astype(np.float32)
        ring = (4 - np.abs(np.hypot(x - 15, y - 10) - 6)).astype(np.float32)
        answer = Answer(ring[None], np.ones(1, np.float32))
        exact = service.masks((1200, 1800), answer)[0]
        small = service.masks((1200, 1800), answer, max_side=600)[0]
        shapes = [
            shapely.union_all([shapely.Polygon(rings[0], rings[1:]) for rings in mask.polygons()])
            for mask in (exact, small)
        ]
        assert shapely.area(shapely.intersection(*shapes)) / shapely.area(shapely.union(*shapes)) > 0.98
        assert shapely.area(shapes[0]) == pytest.approx(exact.area, rel=0.01)

    @pytest.mark.parametrize(("size", "shown"), [((60, 90), None), ((2048, 100), None), ((6000, 9000), (1365, 2048))])
    def test_nothing_is_made_larger(self, size, shown):
        from samjax.app.service import screen_size

        assert screen_size(size, 2048) == shown
        assert screen_size(size, None) is None


class TestEverything:
    def test_it_is_the_generator_s(self, service, sam, opened):
        from samjax.amg.config import GenerationConfig
        from samjax.amg.generator import MaskGenerator

        config = GenerationConfig(points_per_side=6, pred_iou_thresh=0.0, stability_score_thresh=0.0)
        shares = []
        found = service.everything(opened, lambda: opened, config, shares.append)
        assert found == MaskGenerator(sam, config).generate(opened.rgb)
        assert found
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert service.everything(opened, lambda: opened, config, shares.append) is found

    def test_settings_tell_results_apart(self, service, opened):
        from samjax.amg.config import GenerationConfig

        config = GenerationConfig(points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
        service.everything(opened, lambda: opened, config, lambda _: None)
        assert service.found(opened, config) is not None
        assert service.found(opened, dataclasses.replace(config, points_per_side=3)) is None
        assert service.found(dataclasses.replace(opened, hash="other"), config) is None


def test_warmed_up_a_first_click_compiles_nothing(service, opened):
    for work in service.warming():
        work()
    service.embed(opened, lambda: opened)
    service.warm(opened.size)

    def click():
        first = service.answer(opened, lambda: opened, steps(POINT))
        service.masks(opened.size, first, max_side=1024)
        service.answer(opened, lambda: opened, steps(POINT, {**POINT, "refine": True, "multimask": False}))
        service.answer(opened, lambda: opened, steps(BOX))

    assert compiled_programs(click) == []


class TestStore:
    def test_the_oldest_make_room(self, sam, embedding, tmp_path):
        import os

        from samjax.app.embeddings import BoundedStore

        store = BoundedStore(tmp_path, sam)
        store.put("a" * 64, embedding)
        (size,) = (file.stat().st_size for file in tmp_path.iterdir())
        (tmp_path / "notes.txt").write_text("mine")
        bounded = BoundedStore(tmp_path, sam, budget=2 * size)
        bounded.put("b" * 64, embedding)
        for age, name in enumerate("ab"):
            os.utime(bounded._store.path_of(name * 64), ns=(age, age))
        assert bounded.get("a" * 64) is not None  # and is then used last
        bounded.put("c" * 64, embedding)
        assert [bounded.has(name * 64) for name in "abc"] == [True, False, True]
        assert (tmp_path / "notes.txt").exists()

    def test_a_damaged_file_is_made_again(self, sam, embedding, tmp_path, caplog):
        from samjax.app.embeddings import BoundedStore

        store = BoundedStore(tmp_path, sam)
        store.put("a" * 64, embedding)
        store._store.path_of("a" * 64).write_bytes(b"damaged")
        assert store.get("a" * 64) is None
        assert "damaged" in caplog.text
        assert not store.has("a" * 64)

    def test_a_full_disk_costs_no_answer(self, sam, embedding, tmp_path, monkeypatch, caplog):
        import errno

        from samjax.app.embeddings import BoundedStore
        from samjax.embeddings import EmbeddingStore

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(EmbeddingStore, "put_of", full)
        BoundedStore(tmp_path, sam).put("a" * 64, embedding)
        assert "not kept on disk" in caplog.text
