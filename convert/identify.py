"""Guesses the architecture of a checkpoint that is no SAM from its parameter names."""

import re
from collections.abc import Iterable

# (architecture, regular expressions that must each match at the start of some name). The first that fits is returned,
# so relatives of SAM, which share most of its names, come before the wide families.
_ARCHITECTURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SAM 3", (r"(detector|tracker)(_model)?\.", r"detector.*(trunk|vision_encoder|geometry_encoder)")),
    ("SAM 2", (r"(image_encoder\.trunk|vision_encoder\.backbone)\.", r"(sam_)?mask_decoder\.")),
    ("SAM 2", (r"memory_(attention|encoder)\.",)),
    ("Light HQ-SAM (TinyViT encoder)", (r"image_encoder\.patch_embed\.seq\.", r"mask_decoder\.hf_token")),
    ("Hugging Face's form of HQ-SAM", (r"mask_decoder\.(hq_token|hq_mask_mlp|compress_vit_conv)",)),
    ("EfficientSAM", (r"mask_decoder\.final_output_upscaling_layers\.",)),
    ("EfficientSAM", (r"prompt_encoder\.(invalid_points|bbox_top_left_embeddings)\.",)),
    ("EfficientViT-SAM", (r"image_encoder\.backbone\.(input_stem|stages)\.",)),
    ("MobileSAM (TinyViT encoder)", (r"image_encoder\.patch_embed\.seq\.", r"mask_decoder\.")),
    ("EdgeSAM or RepViT-SAM", (r"image_encoder\.(features|stages|stem)\.", r"mask_decoder\.")),
    ("micro-sam's AdaptFormer, which adds the MLP's input once more", (r".*blocks\.\d+\.mlp\.mlp_proj\.",)),
    ("SAM with adapters (Medical SAM Adapter, SAM-Med2D)", (r"image_encoder\.blocks\.\d+\..*adapter",)),
    ("SAM with LoRA weights (merge them into the model first)", (r".*(lora_[ab]|linear_[ab]_[qkv])\b",)),
    ("SAM's image encoder alone", (r"(patch_embed\.proj|neck\.0)\.weight", r"neck\.[03]\.", r"pos_embed$")),
    ("FastSAM or another YOLO", (r"model\.\d+\.(conv|cv1|m\.\d+)\.",)),
    ("an optimizer's state", (r"(param_groups|exp_avg|exp_avg_sq)\b",)),
    ("MAE pre-training", (r"decoder_(embed|blocks|pred)", r"patch_embed\.proj")),
    ("DINOv2", (r"blocks\.\d+(\.\d+)?\.ls1\.", r"patch_embed\.proj")),
    ("CLIP", (r"(visual\.|text_model\.|vision_model\.|token_embedding|logit_scale)",)),
    ("a ViT of timm, DeiT, DINO or MAE", (r"cls_token$", r"blocks\.\d+\.attn\.qkv")),
    ("a Hugging Face ViT", (r"(vit\.|deit\.|dinov2\.)?embeddings\.(cls_token|patch_embeddings)",)),
    ("Swin Transformer", (r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table",)),
    ("Mask R-CNN or another Detectron2 detector", (r"(roi_heads|proposal_generator|backbone\.bottom_up)\.",)),
    ("DETR", (r"(class_embed|bbox_embed|query_embed)", r"transformer\.(encoder|decoder)\.")),
    ("ConvNeXt", (r"(downsample_layers\.\d+|stages\.\d+\.\d+\.dwconv|stages\.\d+\.blocks\.\d+\.conv_dw)",)),
    ("EfficientNet or MobileNet", (r"(features|blocks)\.\d+(\.\d+)*\.(conv_dw|block\.\d+|conv)\b",)),
    ("a ResNet", (r"(backbone\.)?layer[1-4]\.\d+\.conv[12]\.weight",)),
    ("VGG or AlexNet", (r"features\.\d+\.weight", r"classifier\.\d+\.weight")),
    ("a U-Net", (r"(inc|down1|encoder1|downs\.0|ups\.0)\.", r"(up1|outc|decoder1|ups|upconv\d|final_conv)\.")),
    ("a language model", (r"(model\.)?(embed_tokens|wte|lm_head|bert\.|encoder\.layer\.\d+\.attention)",)),
)


def identify(names: Iterable[str]) -> str | None:
    """Returns the architecture that the parameter names suggest, None if they suggest none of those known."""
    listing = "\n".join(name[:200] for name in names)
    for architecture, patterns in _ARCHITECTURES:
        if all(
            re.search(f"^(?:module\\.|model\\.)?{pattern}", listing, re.MULTILINE | re.IGNORECASE)
            for pattern in patterns
        ):
            return architecture
    return None
