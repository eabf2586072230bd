"""What the formats of checkpoints are called for people, and the models that a checkpoint can be written as."""

from __future__ import annotations

from m33d_hf.modeling.task_heads_m33d import HEADS

FORMAT_NAMES = {
    "mae": "MAE (original)",
    "mae_st": "MAE-ST (original)",
    "mae_st_finetuned": "MAE-ST (original, fine-tuned)",
    "videomae": "VideoMAE (original)",
    "multimae": "MultiMAE (original)",
    "multimae_timm": "MultiMAE (timm layout)",
    "timm_vit": "ViT (timm's names: timm, DINO, MAE fine-tuned)",
    "transformers_mae": "ViTMAE (transformers)",
    "transformers_vit": "ViT (transformers)",
    "transformers_videomae": "VideoMAE (transformers)",
    "transformers_dinov2": "DINOv2 (transformers)",
    "dinov2": "DINOv2 (original)",
    "transformers_dinov2_registers": "DINOv2 with registers (transformers)",
    "dinov2_registers": "DINOv2 with registers (original)",
}

CONVERTED_TASKS = ("pretraining", *(head.task for head in HEADS if head.output is not None))
"""Models from pixels to one output; those after the first also load a fine-tuned head that we have too."""
