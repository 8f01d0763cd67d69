"""Which sections there are, and in which order."""

from typing import Any

from gpu_sections.jobs import Job

OURS, META, HUGGING_FACE = "samjax", "Meta's code", "transformers, sdpa"
ENCODERS, DECODERS = "gpu_sections.encoders", "gpu_sections.decoders"
TRAINING, WHOLE_PHOTO = "gpu_sections.training_step:in_samjax", "gpu_sections.whole_photo"
TORCH = ("torch", "segment_anything")
XLAS_OWN = ""  # flags: XLA searches for Triton kernels


def schedule(*, tiny: bool = False) -> list[Job]:
    """All jobs. What must be known comes first; limits are about twice what a job is thought to take on an H100.
    `tiny`: of everything as few as show that it works."""
    few, many = (1, 2) if tiny else (1, 32)
    prompts = (3,) if tiny else (1, 64, 1024)
    photos_b, photos_h, masks = (2, 2, 3) if tiny else (4, 2, 64)
    eight = 2 if tiny else 8
    return [
        Job("peaks", "JAX", "gpu_sections.peaks:in_jax", limit=40),
        Job("peaks", "PyTorch", "gpu_sections.peaks:in_torch", needs=("torch",), limit=40),
        Job("correctness", META, "gpu_sections.correctness:of_meta", needs=TORCH, limit=45),
        Job("correctness", OURS, "gpu_sections.correctness:of_samjax", limit=90),
        _ours("encoder_b8", "vit_b", eight),
        _meta("encoder_b8", "vit_b", eight),
        Job("training_b", OURS, TRAINING, {"variant": "vit_b", "images": photos_b, "masks": masks}, limit=120),
        _ours("encoder_h8", "vit_h", eight, limit=90),
        _meta("encoder_h8", "vit_h", eight),
        # What follows is measured while time lasts.
        Job("attention", OURS, "gpu_sections.attention:of_samjax", limit=75),
        _ours("encoder_b1_b32", "vit_b", few, many, limit=100),
        _meta("encoder_b1_b32", "vit_b", few, many),
        _ours("encoder_l8", "vit_l", eight),
        _meta("encoder_l8", "vit_l", eight),
        _hugging_face("encoder_b8_transformers", "vit_b", eight),
        _hugging_face("encoder_h8_transformers", "vit_h", eight),
        Job("decoder", OURS, f"{DECODERS}:in_samjax", {"variant": "vit_b", "prompts": prompts}, limit=90),
        Job("decoder", META, f"{DECODERS}:in_meta", {"variant": "vit_b", "prompts": prompts}, TORCH),
        Job("everything", OURS, f"{WHOLE_PHOTO}:in_samjax", {"variant": "vit_b", "dtype": "float32"}, limit=120),
        Job("everything", META, f"{WHOLE_PHOTO}:in_meta", {"variant": "vit_b"}, TORCH),
        Job("everything_bf16", OURS, f"{WHOLE_PHOTO}:in_samjax", {"variant": "vit_b", "dtype": "bfloat16"}, limit=120),
        Job("training_h", OURS, TRAINING, {"variant": "vit_h", "images": photos_h, "masks": masks}, limit=180),
        _meta("encoder_b8_compiled_whole", "vit_b", eight, compiling="whole", limit=120),
        _ours("encoder_b8_searched", "vit_b", eight, contender=f"{OURS}, Triton searched", xla_flags=XLAS_OWN),
    ]


def _ours(section: str, variant: str, *batches: int, contender: str = OURS, limit: float = 75, **more: Any) -> Job:
    options = {"variant": variant, "batches": batches}
    return Job(section, contender, f"{ENCODERS}:in_samjax", options, limit=limit, **more)


def _meta(section: str, variant: str, *batches: int, compiling: str = "blocks", limit: float = 75) -> Job:
    options = {"variant": variant, "batches": batches, "compiling": compiling}
    return Job(section, META, f"{ENCODERS}:in_meta", options, TORCH, limit)


def _hugging_face(section: str, variant: str, *batches: int) -> Job:
    options = {"variant": variant, "batches": batches}
    return Job(section, HUGGING_FACE, f"{ENCODERS}:in_transformers", options, ("torch", "transformers"))
