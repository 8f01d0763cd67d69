"""The expected memory is the compiler's, and a budget decides how many points are decoded together."""

from pathlib import Path

import jax
import numpy as np
import pytest
from example_models import SMALL, random_sam

from samjax import Sam, SamAutomaticMaskGenerator, convert
from samjax.amg import memory

SIZE = (90, 120)


@pytest.fixture(scope="module")
def small():
    return random_sam()


def plan(sam, **options) -> memory.Plan:
    return SamAutomaticMaskGenerator(sam, **{"points_per_side": 20, **options}).explain(SIZE)


@pytest.mark.heavy
def test_without_a_budget_the_batch_is_what_was_asked_for(small):
    assert plan(small, points_per_batch=9).points_per_batch == 9
    assert plan(small, points_per_batch=9000).points_per_batch == 400


@pytest.mark.heavy
def test_more_points_together_take_more_memory(small):
    needs = [plan(small, points_per_batch=count).find for count in (1, 50, 400)]
    logits = 4 * 3 * SMALL.mask_size[0] * SMALL.mask_size[1]
    assert needs[0] <= needs[1] < needs[2]
    assert needs[2] >= 400 * logits


def test_a_budget_is_kept_and_used(small):
    roomy = plan(small, points_per_batch=400)
    assert plan(small, memory_budget=roomy.working).points_per_batch > 200
    tight = plan(small, memory_budget=roomy.working - 1_000_000)
    assert 1 <= tight.points_per_batch < 400
    assert tight.working <= roomy.working - 1_000_000


def test_a_budget_that_cannot_be_kept_is_refused_with_the_reasons(small):
    least = plan(small, points_per_batch=1).working
    assert plan(small, memory_budget=least).points_per_batch >= 1
    with pytest.raises(ValueError, match=r"too small: a photo of 120 x 90 takes .* MB") as refused:
        plan(small, memory_budget=least - 1)
    assert "image encoder" in str(refused.value)


def test_the_explanation_adds_up(small):
    explained = plan(small)
    assert explained.weights == sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(small.params))
    *rows, peak = [line.split() for line in str(explained).splitlines()]
    assert peak[-1] == "MB"
    assert float(peak[-2].replace(",", "")) == round((explained.weights + explained.working) / 1e6)
    assert any("64" in row for row in rows)


LARGE = """
import pathlib, re, sys
import numpy as np
import samjax

sam = samjax.load(sys.argv[1])
photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(100, 0).repeat(100, 1)
generator = samjax.SamAutomaticMaskGenerator(
    sam, points_per_side=6, pred_iou_thresh=0.0, stability_score_thresh=0.0, output_mode="coco_rle",
    memory_budget=int(sys.argv[2]),
)
print(len(generator.generate(photo)), file=sys.stderr)
# Not ru_maxrss: a child inherits that of the process that started it.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("budget", [1_300_000_000, 2_000_000_000])
def test_vit_b_on_a_photo_of_12_megapixels_stays_within_the_budget(run_python, tmp_path, budget):
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak is read from /proc")
    sam = Sam.init("vit_b")
    convert.write(tmp_path / "vit_b.pth", sam.config, sam.params)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(sam.params))
    code = f"import sys; sys.argv = ['', {str(tmp_path / 'vit_b.pth')!r}, '{budget}']\n{LARGE}"
    assert int(run_python(code, JAX_PLATFORMS="cpu")) < 1.1 * (budget + weights)
