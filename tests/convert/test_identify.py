"""Other architectures are recognised by their parameter names."""

import pytest

from samjax.convert.identify import identify

# Names as the official checkpoints of each have them.
ARCHITECTURES = {
    "SAM 2": [
        "image_encoder.trunk.blocks.0.attn.qkv.weight",
        "sam_mask_decoder.iou_token.weight",
        "memory_attention.a",
    ],
    "SAM 3": ["detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight", "tracker.maskmem_tpos_enc"],
    "Light HQ-SAM (TinyViT encoder)": ["image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.hf_token.weight"],
    "Hugging Face's form of HQ-SAM": ["vision_encoder.pos_embed", "mask_decoder.hq_token.weight"],
    "micro-sam's AdaptFormer, which adds the MLP's input once more": ["image_encoder.blocks.0.mlp.mlp_proj.lin1.bias"],
    "MobileSAM (TinyViT encoder)": ["image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.iou_token.weight"],
    "EfficientSAM": [
        "image_encoder.pos_embed",
        "prompt_encoder.invalid_points.weight",
        "mask_decoder.iou_token.weight",
    ],
    "EfficientViT-SAM": ["image_encoder.backbone.stages.0.op_list.0.main.conv.weight"],
    "SAM with adapters (Medical SAM Adapter, SAM-Med2D)": ["image_encoder.blocks.0.MLP_Adapter.D_fc1.weight"],
    "SAM with LoRA weights (merge them into the model first)": ["image_encoder.blocks.0.attn.qkv.linear_a_q.weight"],
    "SAM's image encoder alone": ["pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "neck.0.weight"],
    "FastSAM or another YOLO": ["model.0.conv.weight", "model.22.cv2.0.0.conv.weight"],
    "an optimizer's state": ["exp_avg", "exp_avg_sq", "step"],
    "MAE pre-training": [
        "cls_token",
        "patch_embed.proj.weight",
        "decoder_embed.weight",
        "decoder_blocks.0.norm1.weight",
    ],
    "DINOv2": ["cls_token", "patch_embed.proj.weight", "blocks.0.ls1.gamma", "blocks.0.attn.qkv.weight"],
    "CLIP": ["logit_scale", "visual.conv1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight"],
    "a ViT of timm, DeiT, DINO or MAE": [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
    ],
    "a Hugging Face ViT": ["vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"],
    "Swin Transformer": ["layers.0.blocks.0.attn.relative_position_bias_table"],
    "Mask R-CNN or another Detectron2 detector": [
        "backbone.bottom_up.stem.conv1.weight",
        "roi_heads.box_head.fc1.weight",
    ],
    "DETR": ["transformer.encoder.layers.0.linear1.weight", "class_embed.weight", "query_embed.weight"],
    "ConvNeXt": ["downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"],
    "a ResNet": ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
    "a U-Net": [
        "inc.double_conv.0.weight",
        "down1.maxpool_conv.1.double_conv.0.weight",
        "up1.up.weight",
        "outc.conv.bias",
    ],
    "a language model": ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight"],
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_architectures_are_named(architecture):
    assert identify(ARCHITECTURES[architecture]) == architecture
    assert identify([f"module.{name}" for name in ARCHITECTURES[architecture]]) == architecture


def test_sam_itself_and_the_unknown_look_like_nothing_else(tensors):
    assert identify(tensors) is None
    assert identify(["foo.weight", "bar.bias"]) is None
