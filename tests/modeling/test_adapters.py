"""Low-rank adapters of `peft` on our models: they train, save and load by themselves, and nothing else moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.tiny import tiny_config
from m33d_hf import M33DForSemanticSegmentation

pytestmark = pytest.mark.extras
SIZES = {"num_labels": 3, "segmentation_head_width": 16, "segmentation_head_depth": 1}
HEAD = "segmentation_head"


def test_adapters_of_the_encoder_train_and_come_back(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = M33DForSemanticSegmentation(tiny_config(**SIZES))
    base.save_pretrained(tmp_path / "base")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    chosen = peft.LoraConfig(
        r=4, target_modules=r".*encoders\.rgb\..*\.(qkv|proj)", modules_to_save=[HEAD], init_lora_weights="gaussian"
    )
    model = peft.get_peft_model(base, chosen)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name or f"{HEAD}.modules_to_save" in name for name in trained)
    assert {name.split(".lora_")[0][-3:] for name in trained if "lora_" in name} == {"qkv", "roj"}
    pixels, labels = torch.randn(2, 3, 32, 32), torch.arange(32).div(11, rounding_mode="floor").expand(2, 32, 32)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model(pixel_values=pixels, labels=labels).loss
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]

    def plain(name: str) -> str:
        return name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".original_module", "")

    seen = {plain(name): value for name, value in model.state_dict().items()}
    assert all(torch.equal(seen[name], value) for name, value in before.items()), "only the adapters moved"
    assert any(bool(value.any()) for name, value in seen.items() if "lora_B" in name)

    model.eval().save_pretrained(tmp_path / "adapters")
    assert not (tmp_path / "adapters" / "model.safetensors").exists()
    assert json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())["r"] == 4
    again = peft.PeftModel.from_pretrained(
        M33DForSemanticSegmentation.from_pretrained(tmp_path / "base"), tmp_path / "adapters"
    )
    with torch.no_grad():
        wanted = model(pixel_values=pixels).logits
        torch.testing.assert_close(again.eval()(pixel_values=pixels).logits, wanted)
        merged = again.merge_and_unload()
        torch.testing.assert_close(merged(pixel_values=pixels).logits, wanted, atol=1e-5, rtol=1e-4)
    assert type(merged) is M33DForSemanticSegmentation
