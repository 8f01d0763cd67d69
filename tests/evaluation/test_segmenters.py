"""samjax in batches, any predictor one by one: the same answers to the same prompts."""

import numpy as np
import pytest
from example_models import random_photo


@pytest.fixture(scope="module")
def looked_at():
    return [random_photo(40, 70), random_photo(64, 50, seed=1), random_photo(30, 30, seed=2)]


def ragged(mask_size=(32, 32)):
    """For three photos: points, boxes, both and masks in all numbers; nothing about the second photo."""
    from samjax.evaluation.protocol import Prompt

    random = np.random.default_rng(0)

    def points(count):
        return random.uniform(0, 30, (count, 2)).astype(np.float32), random.integers(0, 2, count)

    def logits():
        return random.normal(0, 4, mask_size).astype(np.float32)

    box = np.array([3, 4, 25, 20], np.float32)
    first = [Prompt(*points(1)), Prompt(box=box), Prompt(*points(2), logits=logits())]
    return [first, [], [Prompt(*points(4), box=box, logits=logits())]]


def alone(sam, photo, prompt, multimask):
    from samjax import SamPredictor

    predictor = SamPredictor(sam)
    predictor.set_image(photo)
    mask = None if prompt.logits is None else prompt.logits[None]
    return predictor.predict(prompt.points, prompt.labels, prompt.box, mask, multimask)


def assert_same(answer, expected):
    masks, iou, logits = expected
    np.testing.assert_allclose(answer.logits, logits, rtol=1e-4, atol=1e-4 * abs(logits).max())
    np.testing.assert_allclose(answer.iou, iou, rtol=1e-4, atol=1e-5)
    assert answer.masks.shape == masks.shape
    assert (answer.masks != masks).mean() < 1e-3


@pytest.mark.parametrize(
    ("kind", "multimask"),
    [
        ("samjax in batches", True),
        ("a predictor", True),
        pytest.param("samjax in batches", False, marks=pytest.mark.heavy),
        pytest.param("a predictor", False, marks=pytest.mark.heavy),
    ],
)
def test_each_prompt_is_answered_as_if_it_were_alone(sam, looked_at, kind, multimask):
    from samjax import SamPredictor
    from samjax.evaluation.segmenters import PredictorSegmenter, SamSegmenter

    batches = kind == "samjax in batches"
    segmenter = SamSegmenter(sam, images_together=3) if batches else PredictorSegmenter(SamPredictor(sam))
    segmenter.look(looked_at)
    prompts = ragged(sam.config.mask_size)
    answers = segmenter.ask(prompts, multimask=multimask)
    assert [len(own) for own in answers] == [3, 0, 1]
    for photo, own, given in zip(looked_at, answers, prompts, strict=True):
        for answer, prompt in zip(own, given, strict=True):
            assert answer.masks.shape == (3 if multimask else 1, *photo.shape[:2])
            assert_same(answer, alone(sam, photo, prompt, multimask))


@pytest.mark.parametrize("kind", ["samjax in batches", "a predictor"])
def test_full_logits_are_the_masks_before_the_threshold(sam, looked_at, kind):
    from samjax import SamPredictor
    from samjax.evaluation.segmenters import PredictorSegmenter, SamSegmenter

    batches = kind == "samjax in batches"
    segmenter = SamSegmenter(sam) if batches else PredictorSegmenter(SamPredictor(sam))
    segmenter.look(looked_at)
    answers = segmenter.ask(ragged(sam.config.mask_size), multimask=True)
    for photo in (0, 2):
        for answer in answers[photo]:
            full = segmenter.full_logits(photo, answer.logits)
            assert full.dtype == np.float32
            np.testing.assert_array_equal(full > 0, answer.masks)


def test_photos_that_nothing_is_asked_about_cost_nothing(sam, looked_at):
    from samjax.evaluation.segmenters import SamSegmenter

    segmenter = SamSegmenter(sam)
    segmenter.look(looked_at)
    assert segmenter.ask([[], [], []], multimask=True) == [[], [], []]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_prompts_must_come_for_each_photo(sam, looked_at, count):
    from samjax import SamPredictor
    from samjax.evaluation.segmenters import PredictorSegmenter, SamSegmenter

    for segmenter in (SamSegmenter(sam), PredictorSegmenter(SamPredictor(sam))):
        segmenter.look(looked_at)
        with pytest.raises(ValueError, match=rf"3 photo\(s\) were looked at, prompts came for {count}"):
            segmenter.ask([[]] * count, multimask=True)


def test_all_prompts_of_all_photos_are_one_call(sam, looked_at, monkeypatch):
    from samjax.evaluation.segmenters import SamSegmenter

    calls = []
    predict_batch = type(sam).predict_batch
    monkeypatch.setattr(
        type(sam), "predict_batch", lambda *args, **kwargs: calls.append(args) or predict_batch(*args, **kwargs)
    )
    segmenter = SamSegmenter(sam)
    segmenter.look(looked_at)
    segmenter.ask(ragged(sam.config.mask_size), multimask=True)
    assert len(calls) == 1


def test_masks_are_upscaled_as_many_together_as_suits_the_backend(sam, looked_at, monkeypatch):
    import dataclasses

    from samjax import transforms
    from samjax.evaluation.segmenters import SamSegmenter

    calls = []
    upscale = transforms._upscale
    monkeypatch.setattr(transforms, "_upscale", lambda x, *a, **k: calls.append(len(x)) or upscale(x, *a, **k))
    answers = []
    for together in (1, 4):
        execution = dataclasses.replace(sam.execution, masks_per_step=together)
        segmenter = SamSegmenter(dataclasses.replace(sam, execution=execution))
        segmenter.look(looked_at)
        answers.append(segmenter.ask(ragged(sam.config.mask_size), multimask=True))
    assert calls == [1] * 12 + [4] * 4  # 9 masks and 3
    for one, other in zip(*answers, strict=True):
        for alone, batched in zip(one, other, strict=True):
            np.testing.assert_array_equal(alone.masks, batched.masks)


SHARDED = """
import sys
sys.path.insert(0, "tests"); sys.path.insert(0, "tests/evaluation")
import dataclasses, jax, numpy as np
from example_models import random_photo, random_sam
from samjax import transforms
from samjax.evaluation.protocol import Prompt
from samjax.evaluation.segmenters import SamSegmenter
from samjax.sharding import make_mesh

assert len(jax.devices()) == 8
sam = random_sam()
photos = [random_photo(40 + 3 * i, 70 - 2 * i, seed=i) for i in range(6)]  # two fewer than devices
points = lambda *xy: Prompt(np.array(xy, np.float32), np.ones(len(xy), np.int64))
prompts = [[points((10, 20)), points((5, i), (20, 20))][: 1 + i % 2] for i in range(5)] + [[]]
devices, upscale = [], transforms._upscale
def counted(masks, *args, **kwargs):
    devices.append(len(masks.devices()) if isinstance(masks, jax.Array) else 1)
    return upscale(masks, *args, **kwargs)
transforms._upscale = counted
spread, single = SamSegmenter(sam, make_mesh(DATA, FSDP)), SamSegmenter(sam)
assert (spread.images_together, single.images_together) == (8, 1)
answers = []
for segmenter in (spread, single):
    segmenter.look(photos)
    answers.append(segmenter.ask(prompts, multimask=True))
assert devices == [8] * 5 + [1] * 21  # three masks, or six, of each photo
features = spread._embeddings.features
assert {shard.data.shape[0] for shard in features.addressable_shards} == {1}
assert len({shard.device for shard in features.addressable_shards}) == 8
for ours, theirs in zip(*answers, strict=True):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert np.linalg.norm(one.logits - other.logits) <= 1e-5 * np.linalg.norm(other.logits)
        assert np.abs(one.iou - other.iou).max() <= 1e-5
        assert one.masks.shape == other.masks.shape and (one.masks != other.masks).mean() < 1e-3
"""


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param((8, 1), id="parameters replicated"),
        pytest.param((2, 4), id="parameters sharded", marks=pytest.mark.heavy),
    ],
)
def test_photos_spread_over_eight_devices_have_the_same_answers(run_python, root, monkeypatch, axes):
    from test_sharding import FLAGS

    monkeypatch.chdir(root)
    code = SHARDED.replace("DATA", str(axes[0])).replace("FSDP", str(axes[1]))
    run_python(code, XLA_FLAGS=FLAGS, JAX_PLATFORMS="cpu", JAX_DISABLE_MOST_OPTIMIZATIONS="1")


def test_images_together_must_suit_the_mesh(sam):
    import jax

    from samjax.evaluation.segmenters import SamSegmenter
    from samjax.sharding import make_mesh

    assert SamSegmenter(sam, make_mesh(devices=jax.devices()[:1])).images_together == 1
    with pytest.raises(ValueError, match="images_together is -1"):
        SamSegmenter(sam, images_together=-1)


MODULE = """
import numpy as np

class Half:
    '''Takes the left half for the object, whatever it is asked.'''
    def set_image(self, image):
        self.shape = image.shape[:2]
    def predict(self, point_coords=None, point_labels=None, box=None, mask_input=None, multimask_output=True):
        masks = np.zeros((1, *self.shape), np.float32)  # as SAM 2's predictor has them
        masks[:, :, : self.shape[1] // 2] = 1
        return masks, np.ones(1), np.zeros((1, 8, 8))

class WrongSize(Half):
    def set_image(self, image):
        self.shape = (5, 6)

def nothing():
    return object()

def forgotten():
    Half()

def failing():
    raise RuntimeError("the weights are damaged")

def of_a_file(path):
    return Half()

constant = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "a_half_predictor.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "a_half_predictor"


def test_a_predictor_is_made_by_a_factory_in_the_current_folder(module, looked_at):
    import sys

    from samjax.evaluation.protocol import Prompt
    from samjax.evaluation.segmenters import from_spec

    path = list(sys.path)
    segmenter = from_spec(f"{module}:Half")
    assert sys.path == path
    segmenter.look(looked_at[:1])
    [[answer]] = segmenter.ask([[Prompt(box=np.array([0, 0, 9, 9], np.float32))]], multimask=False)
    assert answer.masks.dtype == bool
    assert answer.masks[0].mean() == 0.5


def test_a_predictor_of_another_source_has_another_fingerprint(module, tmp_path):
    from samjax.evaluation.segmenters import from_spec

    before = from_spec(f"{module}:Half").fingerprint()
    assert list(before) == ["source"]
    (tmp_path / "another_predictor.py").write_text(MODULE + "\n# changed\n", encoding="utf-8")
    assert from_spec("another_predictor:Half").fingerprint() != before


def test_a_samjax_predictor_has_the_fingerprint_of_its_weights(sam):
    from samjax import SamPredictor
    from samjax.embeddings import model_hash
    from samjax.evaluation.segmenters import PredictorSegmenter

    own = {"sha256": model_hash(sam)[:16]}
    assert PredictorSegmenter(SamPredictor(sam)).fingerprint() == own
    assert PredictorSegmenter(SamPredictor(sam.with_dtype("bfloat16"))).fingerprint() != own


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a_half_predictor", "named module:factory"),
        (":Half", "named module:factory"),
        ("no_such_module_at_all:build", "'no_such_module_at_all' cannot be imported: ModuleNotFoundError"),
        ("unfinished_predictor:build", r"'unfinished_predictor' cannot be imported: SyntaxError.*line 1"),
        ("unlucky_predictor:build", "'unlucky_predictor' cannot be imported: ZeroDivisionError"),
        ("a_half_predictor:build", "has no function 'build'"),
        ("a_half_predictor:constant", "has no function 'constant'"),
        ("a_half_predictor:nothing", "from a_half_predictor:nothing: TypeError.* object lacks set_image and predict"),
        ("a_half_predictor:forgotten", "from a_half_predictor:forgotten: TypeError.* NoneType lacks set_image"),
        ("a_half_predictor:failing", "from a_half_predictor:failing: RuntimeError: the weights are damaged"),
        ("a_half_predictor:of_a_file", "TypeError.* missing 1 required .*must be a function without arguments"),
    ],
)
def test_what_is_no_predictor_is_explained(module, tmp_path, spec, message):
    from samjax.evaluation.segmenters import from_spec

    (tmp_path / "unfinished_predictor.py").write_text("def build(:\n", encoding="utf-8")
    (tmp_path / "unlucky_predictor.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        from_spec(spec)


def test_masks_of_another_size_than_the_photo_are_refused(module, looked_at):
    from samjax.evaluation.protocol import Prompt
    from samjax.evaluation.segmenters import from_spec

    segmenter = from_spec(f"{module}:WrongSize")
    segmenter.look(looked_at[:1])
    with pytest.raises(ValueError, match=r"masks of shape \(1, 5, 6\) for a photo of \(40, 70\)"):
        segmenter.ask([[Prompt(box=np.array([0, 0, 9, 9], np.float32))]], multimask=False)
