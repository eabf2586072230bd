"""What a rank of two does to see that the threshold of the berHu loss is that of both ranks' pixels."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask


def share_the_berhu_threshold() -> None:
    """Half a batch per rank, at once and in two parts, comes to the loss of the whole batch."""
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1}
    model = M33DForDepthEstimation(M33DConfig(**sizes, intermediate_size=8, depth_head_width=8))
    far = torch.tensor([1.0, 2.0, 4.0, 9.0])[:, None, None]
    pixels, labels = torch.randn(4, 3, 16, 16), torch.rand(4, 16, 16) * far
    whole = model(pixels, labels).loss
    part = {"pixel_values": pixels[rank::2], "labels": labels[rank::2]}
    for cuts in ([part], [{key: value[i : i + 1] for key, value in part.items()} for i in range(2)]):
        extra = DepthEstimationTask().prepare_step(model, cuts)
        outputs = [model(**cut, **extra) for cut in cuts]
        pair = torch.stack([sum(o.loss_sums["berhu"] for o in outputs), sum(o.loss_counts["berhu"] for o in outputs)])
        pair = pair.detach().clone()
        dist.all_reduce(pair)
        torch.testing.assert_close(pair[0] / pair[1], whole.detach())
    dist.destroy_process_group()
