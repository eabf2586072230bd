"""MultiMAE's released layout -> our `multimae`: same features and predictions, by a forward pass written out here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.foreign import mae_config, original_mae, tiny_vitmae
from m33d_hf.convert import config_for, convert_state_dict, from_state_dict, load_foreign
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.patches_m33d import unpatchify
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.training.initialisation import initialise, starting_config
from m33d_hf.training.parsing import parse_arguments

WIDTH, INNER, LAYERS, HEADS = 64, 96, 2, 1  # ours infers 64 channels per head
SMALL, SMALL_INNER, SMALL_HEADS = 64, 80, 2  # and 32 per head in decoders
SIDE, PATCH = 3, 4
TASKS = {"rgb": 3, "depth": 1, "norm_rgb": 3}


def their_table(dim: int) -> Tensor:
    """(1, D, h, w), entry by entry: the first half of the channels tells the row, the second the column."""
    quarter = dim // 4
    table = torch.zeros(1, dim, SIDE, SIDE)
    for y in range(SIDE):
        for x in range(SIDE):
            for k in range(quarter):
                for half, value in ((0, y), (1, x)):
                    angle = value / 10000 ** (k / quarter)
                    table[0, half * 2 * quarter + k, y, x] = math.sin(angle)
                    table[0, half * 2 * quarter + quarter + k, y, x] = math.cos(angle)
    return table


def released_layout(semseg: bool = True) -> dict[str, Tensor]:
    """Random weights under the names of REFERENCE §3.6, at a tiny size."""
    shapes: dict[str, tuple[int, ...]] = {"global_tokens": (1, 1, WIDTH)}

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def block(name: str, width: int, inner: int) -> None:
        norm(f"{name}.norm1", width)
        linear(f"{name}.attn.qkv", 3 * width, width)
        linear(f"{name}.attn.proj", width, width)
        norm(f"{name}.norm2", width)
        linear(f"{name}.mlp.fc1", inner, width)
        linear(f"{name}.mlp.fc2", width, inner)

    for name, channels in (("rgb", 3), ("depth", 1)):
        shapes[f"input_adapters.{name}.proj.weight"] = (WIDTH, channels, PATCH, PATCH)
        shapes[f"input_adapters.{name}.proj.bias"] = (WIDTH,)
    for n in range(LAYERS):
        block(f"encoder.{n}", WIDTH, INNER)
    for task, channels in TASKS.items():
        own = f"output_adapters.{task}"
        shapes[f"{own}.mask_token"] = (1, 1, SMALL)
        for m in ("rgb", "depth", *(["semseg"] if semseg else [])):
            shapes[f"{own}.task_embeddings.{m}"] = (1, 1, SMALL)
        linear(f"{own}.decoder.q", SMALL, SMALL)
        linear(f"{own}.decoder.kv", 2 * SMALL, SMALL)
        linear(f"{own}.decoder.proj", SMALL, SMALL)
        for part in ("context_norm", "query_norm", "out_norm"):
            norm(f"{own}.{part}", SMALL)
        linear(f"{own}.mlp.fc1", SMALL_INNER, SMALL)
        linear(f"{own}.mlp.fc2", SMALL, SMALL_INNER)
        for n in range(2):
            block(f"{own}.decoder_transformer.{n}", SMALL, SMALL_INNER)
        linear(f"{own}.out_proj.{task}", channels * PATCH * PATCH, SMALL)
        linear(f"{own}.proj_context", SMALL, WIDTH)
    generator = torch.Generator().manual_seed(0)
    weights = {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    weights = {k: 1 + v if v.ndim == 1 and k.endswith("weight") else v for k, v in weights.items()}
    for name in ("rgb", "depth"):
        weights[f"input_adapters.{name}.pos_emb"] = their_table(WIDTH)
    for task in TASKS:
        weights[f"output_adapters.{task}.pos_emb"] = their_table(SMALL)
    if semseg:
        weights["input_adapters.semseg.class_emb.weight"] = torch.zeros(5, 3)
        weights["output_adapters.semseg.mask_token"] = torch.zeros(1, 1, SMALL)
    return weights


class Theirs:
    """MultiMAE's forward pass for one sample, as REFERENCE §3.1 describes it."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.w = {key: tensor.double() for key, tensor in weights.items()}

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-6)

    def mlp(self, x: Tensor, name: str) -> Tensor:
        return self.linear(functional.gelu(self.linear(x, f"{name}.fc1")), f"{name}.fc2")

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        parts = [t.unflatten(1, (heads, -1)).transpose(0, 1) for t in (q, k, v)]
        scores = torch.softmax(parts[0] @ parts[1].mT / math.sqrt(parts[0].shape[-1]), dim=-1)
        return (scores @ parts[2]).transpose(0, 1).flatten(1)

    def block(self, x: Tensor, name: str, heads: int) -> Tensor:
        q, k, v = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, dim=1)
        x = x + self.linear(self.attend(q, k, v, heads), f"{name}.attn.proj")
        return x + self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp")

    def encode(self, pixels: dict[str, Tensor], keep: list[int] | None) -> Tensor:
        tokens = []
        for name, image in pixels.items():
            own = f"input_adapters.{name}"
            maps = functional.conv2d(
                image[None].double(), self.w[f"{own}.proj.weight"], self.w[f"{own}.proj.bias"], stride=PATCH
            )
            tokens.append((maps + self.w[f"{own}.pos_emb"])[0].flatten(1).T)
        x = torch.cat(tokens)
        x = torch.cat([x if keep is None else x[keep], self.w["global_tokens"][0]])
        for n in range(LAYERS):
            x = self.block(x, f"encoder.{n}", HEADS)
        return x

    def predict(self, task: str, encoded: Tensor, keep: list[int]) -> Tensor:
        """(C, H, W)."""
        own, total = f"output_adapters.{task}", SIDE * SIDE
        latents = self.linear(encoded, f"{own}.proj_context")
        full = self.w[f"{own}.mask_token"][0].repeat(2 * total, 1)
        full[keep] = latents[:-1]
        places = self.w[f"{own}.pos_emb"][0].flatten(1).T
        names = ("rgb", "depth")
        full = full + torch.cat([places + self.w[f"{own}.task_embeddings.{m}"][0] for m in names])
        start = 0 if task != "depth" else total
        queries, context = full[start : start + total], torch.cat([full[keep], latents[-1:]])
        q = self.linear(self.norm(queries, f"{own}.query_norm"), f"{own}.decoder.q")
        k, v = self.linear(self.norm(context, f"{own}.context_norm"), f"{own}.decoder.kv").chunk(2, dim=1)
        x = self.linear(self.attend(q, k, v, SMALL_HEADS), f"{own}.decoder.proj")
        x = x + self.mlp(self.norm(x, f"{own}.out_norm"), f"{own}.mlp")
        for n in range(2):
            x = self.block(x, f"{own}.decoder_transformer.{n}", SMALL_HEADS)
        x = self.linear(x, f"{own}.out_proj.{task}")
        # (h w) (c ph pw) to c (h ph) (w pw)
        x = x.reshape(SIDE, SIDE, TASKS[task], PATCH, PATCH).permute(2, 0, 3, 1, 4)
        return x.reshape(TASKS[task], SIDE * PATCH, SIDE * PATCH)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return released_layout()


@pytest.fixture(scope="module")
def file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("multimae") / "multimae-b.pth"
    torch.save({"model": weights, "epoch": 1599}, path)
    return path


def images() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    side = SIDE * PATCH
    return {name: torch.randn(c, side, side, generator=generator) for name, c in (("rgb", 3), ("depth", 1))}


def test_features_and_predictions_are_theirs(weights: dict[str, Tensor], file: Path) -> None:
    checkpoint = load_foreign(file)
    assert checkpoint.format == "multimae"
    torch.manual_seed(1)
    model = M33DForPreTraining(M33DConfig(**config_for(checkpoint))).double().eval()
    report = convert_state_dict(checkpoint, model)
    assert not report.new
    assert set(report.filled) == set(model.state_dict())
    assert set(report.used) | set(report.ignored) >= set(weights)
    assert all("semseg" in k or "pos_emb" in k or k == "epoch" for k in report.ignored)
    pixels, keep = images(), [0, 2, 5, 9 + 1, 9 + 8]
    inputs = {"pixel_values": pixels["rgb"][None].double(), "depth_values": pixels["depth"][None].double()}
    found = model(**inputs, keep={"joint": torch.tensor([keep])}, output_reconstruction=True)
    theirs = Theirs(weights)
    encoded = theirs.encode(pixels, keep)
    for task in TASKS:
        ours = unpatchify(found.reconstructions[task], (1, SIDE, SIDE), 1, (PATCH, PATCH))[0, 0]
        # Our positions are rounded to float32.
        torch.testing.assert_close(ours, theirs.predict(task, encoded, keep), rtol=1e-5, atol=1e-5)


def test_fine_tuning_starts_from_their_rgb_encoder(weights: dict[str, Tensor], file: Path) -> None:
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    sizes |= {"intermediate_size": INNER, "image_size": SIDE * PATCH, "patch_size": PATCH}
    words = ["--train.max_steps", "1", "--init_from", str(file)]
    words += [word for name, value in sizes.items() for word in (f"--model.{name}", str(value))]
    config = starting_config(parse_arguments(words, "semantic_segmentation"), num_labels=3)
    assert config.global_token and not config.use_cls_token
    model = M33DForSemanticSegmentation(config).eval()
    report = initialise(model, file)
    assert all(name.startswith("segmentation_head.") for name in report.new)
    pixels = images()["rgb"]
    ours = model.extract_features(pixels[None])["rgb"][0].double()
    # Channels of our residual stream: theirs with the halves exchanged.
    theirs = torch.cat(Theirs(weights).encode({"rgb": pixels}, None)[:-1].chunk(2, dim=1)[::-1], dim=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_positions_that_were_trained_are_refused(weights: dict[str, Tensor]) -> None:
    from m33d_hf.errors import ConversionError

    checkpoint = from_state_dict({**weights, "input_adapters.rgb.pos_emb": torch.randn(1, WIDTH, SIDE, SIDE)})
    with pytest.raises(ConversionError, match="is not the fixed sincos_2d table"):
        convert_state_dict(checkpoint, M33DForPreTraining(M33DConfig(**config_for(checkpoint))))


def test_decoders_of_another_shape_start_anew(file: Path) -> None:
    checkpoint = load_foreign(file)
    model = M33DForPreTraining(M33DConfig(**{**config_for(checkpoint), "decoder_hidden_size": 32}))
    report = convert_state_dict(checkpoint, model)
    assert all(name.startswith("decoder.") for name in report.new)
    assert any("decoder_hidden_size 64 (model: 32)" in reason for reason in report.new.values())


def test_multimae_starts_from_mae_weights() -> None:
    """REFERENCE §3.7: the global token is MAE's class token plus its position; final norm and decoder are left out."""
    original = original_mae(tiny_vitmae())
    checkpoint = from_state_dict(original)
    fields = mae_config().to_dict() | {"use_cls_token": False, "global_token": True, "encoder_norm": False}
    fields |= {"joint_encoding": True, "token_budget": 0.25, "decoder_kind": "per_target", "encoder_sharing": "shared"}
    known = {k: v for k, v in fields.items() if k in M33DConfig.__dataclass_fields__ and k != "transformers_version"}
    model = M33DForPreTraining(M33DConfig(**{**known, "modalities": None}))
    report = convert_state_dict(checkpoint, model)
    expected = original["cls_token"] + original["pos_embed"][:, :1]
    torch.testing.assert_close(model.m33d.global_token.detach(), expected)
    kernel = model.m33d.embeddings["depth"].projection.weight.detach()
    torch.testing.assert_close(kernel, original["patch_embed.proj.weight"].sum(dim=1, keepdim=True))
    assert all(name.startswith("decoder.targets.") for name in report.new)
    assert report.ignored["norm.weight"] == "the model's head reads the raw blocks, before any final norm"
