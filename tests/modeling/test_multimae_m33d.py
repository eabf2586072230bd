"""MultiMAE: the token budget, the joint sequence, the decoders per target, and the losses, against plain formulas."""

import math

import pytest
import torch

from helpers.tiny import MULTIMAE, NORM_RGB, both, random_batch, tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import rgb_modality
from m33d_hf.modeling.masking_m33d import budget_without, draw_budget, draw_keep, masked_by_budget
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.visualization.reconstruction import output_views


def multimae(**overrides):
    torch.manual_seed(0)
    return M33DForPreTraining(tiny_config(**{**MULTIMAE, **overrides}))


def joint(rgb, depth, total=16):
    """A joint index from lists of visible positions."""
    return torch.tensor([*rgb, *(total + n for n in depth)])


# -- the token budget ------------------------------------------------------------------------------------------------


def test_exactly_the_budget_is_kept_ascending_and_distinct():
    for budget in (1, 7, 0.25, 20, 31):
        config = tiny_config(**{**MULTIMAE, "token_budget": budget})
        keep = draw_budget(config, 200, generator=torch.Generator().manual_seed(0))
        assert keep.shape == (200, int(budget * 32) if budget < 1 else budget)
        assert (keep.diff(dim=1) > 0).all() and keep.min() >= 0 and keep.max() < 32


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_shares_are_dirichlet_and_positions_uniform(alpha):
    config = tiny_config(**{**MULTIMAE, "image_size": 64, "token_budget": 32, "token_budget_alpha": alpha})
    keep = draw_budget(config, 4000, generator=torch.Generator().manual_seed(0))
    share = (keep < 64).double().mean(dim=1)
    # One of two proportions of a symmetric Dirichlet is Beta(alpha, alpha).
    assert share.mean().item() == pytest.approx(0.5, abs=0.015)
    assert share.std().item() == pytest.approx(math.sqrt(1 / (4 * (2 * alpha + 1))), rel=0.04)
    assert torch.bincount(keep.flatten(), minlength=128).div(4000).sub(0.25).abs().max() < 0.04
    if alpha == 1.0:
        quarters = torch.tensor([(share <= q).double().mean() for q in (0.25, 0.5, 0.75)])  # 8 of 32 or fewer: 8.5 / 32
        torch.testing.assert_close(quarters, torch.tensor([0.265, 0.515, 0.765]).double(), atol=0.02, rtol=0)


def test_a_sample_sees_the_same_in_every_batch_and_masks_are_its_complement():
    config = tiny_config(**MULTIMAE)

    def draw(seeds):
        return draw_keep(config, len(seeds), generator=[torch.Generator().manual_seed(s) for s in seeds])["joint"]

    keep = draw([3, 4, 5])
    assert torch.equal(keep[1], draw([4])[0])
    assert not torch.equal(keep[0], keep[1])
    masked = masked_by_budget(keep, 2, 16)
    for row, flags in zip(keep, masked.flatten(1)):
        assert sorted(row.tolist()) == (~flags).nonzero()[:, 0].tolist()


# -- encoder ---------------------------------------------------------------------------------------------------------


def test_joint_encoding_is_embedding_everything_then_picking():
    model, batch = multimae(), random_batch(tiny_config(**MULTIMAE))
    keep = draw_keep(model.config, 4)["joint"]
    base = model.m33d
    clips = {"rgb": batch["pixel_values"][:, None], "depth": batch["depth_values"][:, None]}
    states = base.encode(clips, {"joint": keep})
    tables = [
        torch.nn.functional.conv2d(batch[name], kernel.weight, kernel.bias, stride=8).flatten(2).mT
        + base.positions((1, 4, 4))
        for name, kernel in (
            ("pixel_values", base.embeddings["rgb"].projection),
            ("depth_values", base.embeddings["depth"].projection),
        )
    ]
    everything = torch.cat(tables, dim=1)
    picked = torch.stack([everything[b, keep[b]] for b in range(4)])
    expected = base.encoders["shared"](torch.cat([picked, base.global_token.expand(4, -1, -1)], dim=1))
    assert base.encoders["shared"].layernorm is None
    torch.testing.assert_close(states["joint"], expected[:, :-1])
    torch.testing.assert_close(states["global"], expected[:, -1:])


def test_the_global_token_ends_the_sequence_and_no_head_reads_it():
    config = tiny_config(**MULTIMAE)
    torch.manual_seed(0)
    model, pixels = M33DModel(config).eval(), torch.randn(2, 3, 32, 32)
    inputs = {"pixel_values": pixels, "depth_values": torch.randn(2, 1, 32, 32)}
    assert model(**inputs).last_hidden_state.shape[1] == 33
    assert {n: s.shape[1] for n, s in model.extract_features(**inputs).items()} == {"rgb": 16, "depth": 16}
    before = model.extract_features(pixels)["rgb"]
    blocks, _ = model.forward_intermediates(pixels, [1])
    torch.testing.assert_close(blocks[0], before)
    with torch.no_grad():
        model.global_token.add_(torch.randn(config.hidden_size))
    after = model.extract_features(pixels)["rgb"]
    assert after.shape == before.shape == (2, 16, 32)
    assert not torch.allclose(after, before)


# -- decoders --------------------------------------------------------------------------------------------------------


def norm(x, layer):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, layer.eps)


def mlp(x, layer):
    return torch.nn.functional.gelu(x @ layer.fc1.weight.T + layer.fc1.bias) @ layer.fc2.weight.T + layer.fc2.bias


def attend(queries, context, layer):
    """Written out for one sample: (K, E) and (C, E) to (K, E)."""
    width, heads = layer.width, layer.num_heads
    weight, bias = layer.qkv.weight.split(width), layer.qkv.bias.split(width)
    q, k, v = queries @ weight[0].T + bias[0], context @ weight[1].T + bias[1], context @ weight[2].T + bias[2]
    out, size = [], width // heads
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        out.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=-1) @ v[:, part])
    return torch.cat(out, dim=1) @ layer.proj.weight.T + layer.proj.bias


def plain_decoder(decoder, task, visible, token, places, table):
    """One sample: lists of (modality, position) for the visible tokens."""
    project = lambda x: x @ decoder.embed.weight.T + decoder.embed.bias  # noqa: E731
    context = [project(x) + table[n] + decoder.task_embeddings[m][0, 0] for x, (m, n) in zip(visible, places)]
    context = torch.stack([*context, project(token)])
    queries = []
    for n in range(len(table)):
        own = [project(x) for x, place in zip(visible, places) if place == (task, n)]
        queries.append((own[0] if own else decoder.mask_token[0, 0]) + table[n] + decoder.task_embeddings[task][0, 0])
    x = attend(norm(torch.stack(queries), decoder.query_norm), norm(context, decoder.context_norm), decoder.attention)
    x = x + mlp(norm(x, decoder.out_norm), decoder.mlp)
    for layer in decoder.layers:
        normed = norm(x, layer.layernorm_before)
        x = x + attend(normed, normed, layer.attention)
        x = x + mlp(norm(x, layer.layernorm_after), layer.mlp)
    return x @ decoder.head.weight.T + decoder.head.bias


def test_decoders_against_a_formula_in_float64():
    model = multimae().double()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    keep = torch.stack([joint([0, 3, 9, 15], [1, 2, 7, 8]), joint([5], [0, 1, 2, 3, 4, 10, 15]), joint(range(8), [])])
    states = {"joint": torch.randn(3, 8, 32).double(), "global": torch.randn(3, 1, 32).double()}
    predictions, positions = model.decoder(states, {"joint": keep}, (1, 4, 4))
    assert list(predictions) == ["rgb", "depth", "norm_rgb"]
    table = model.decoder.positions((1, 4, 4)).double()
    for name, task in (("rgb", "rgb"), ("depth", "depth"), ("norm_rgb", "rgb")):
        assert torch.equal(positions[name], torch.arange(16).expand(3, -1))
        for b in range(3):
            places = [("rgb" if n < 16 else "depth", n % 16) for n in keep[b].tolist()]
            expected = plain_decoder(
                model.decoder.targets[name], task, states["joint"][b], states["global"][b, 0], places, table
            )
            torch.testing.assert_close(predictions[name][b], expected, atol=1e-10, rtol=1e-8)


def test_decoders_are_not_shared_and_mask_tokens_start_at_zero():
    decoders = multimae().decoder.targets
    assert len({id(p) for d in decoders.values() for p in d.parameters()}) == sum(
        len(list(d.parameters())) for d in decoders.values()
    )
    for decoder in decoders.values():
        assert decoder.mask_token.abs().max() == 0
        assert all(0 < e.std() < 0.04 for e in decoder.task_embeddings.values())


def test_a_modality_that_is_only_predicted_has_mask_tokens_alone():
    modalities = [rgb_modality(), *both()[1:], {**NORM_RGB, "name": "more", "target_of": None, "input_name": "more"}]
    torch.manual_seed(0)
    model = M33DForPreTraining(tiny_config(**{**MULTIMAE, "modalities": modalities}))
    batch = {**random_batch(model.config), "more": torch.randn(4, 3, 32, 32)}
    batch["keep"] = draw_keep(model.config, 4)
    output = model(**batch, output_reconstruction=True)
    assert output.reconstructions["more"].shape == (4, 16, 192)
    output.loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# -- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["sample", "batch"])
def test_losses_count_masked_valid_values_of_each_sample(reduction):
    model = multimae(loss_reduction=reduction)
    batch = random_batch(model.config, batch_size=3)
    # The second sample shows all of RGB: nothing of it is left to predict there.
    keep = torch.stack([joint([0, 3, 9, 15], range(13)), joint(range(16), [4]), joint([2], range(16))])
    output = model(**batch, keep={"joint": keep}, output_reconstruction=True)
    counts = model.loss_counts(**batch, keep={"joint": keep})
    for name in ("rgb", "depth", "norm_rgb"):
        values = batch["depth_values" if name == "depth" else "pixel_values"]
        means, pooled = [], []
        for b in range(3):
            errors = []
            for n in range(16):
                if n + (16 if name == "depth" else 0) in keep[b].tolist():
                    continue
                row, column = 8 * (n // 4), 8 * (n % 4)
                patch = values[b, :, row : row + 8, column : column + 8].permute(1, 2, 0).flatten()
                if name == "norm_rgb":
                    patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
                error = output.reconstructions[name][b, n] - patch
                if name == "depth":
                    valid = batch["depth_mask"][b, 0, row : row + 8, column : column + 8].flatten()
                    errors.append(error[valid].abs())
                else:
                    errors.append(error**2)
            if errors:
                means.append(torch.cat(errors).mean())
                pooled.append(torch.cat(errors))
        expected = torch.stack(means).mean() if reduction == "sample" else torch.cat(pooled).mean()
        torch.testing.assert_close(output.losses[name], expected)
        assert len(means) == 2  # the second sample shows all of RGB, the third all of depth
        assert output.loss_counts[name] == counts[name]
        assert counts[name] == (len(means) if reduction == "sample" else len(torch.cat(pooled)))


def test_diagnostics_hide_a_modality_by_giving_its_budget_to_the_other():
    model = multimae().eval()
    batch = random_batch(model.config)
    keep = draw_keep(model.config, 4)["joint"]
    for number, own in ((0, keep < 16), (1, keep >= 16)):
        unseen = budget_without(keep, number, 2, 16)
        assert unseen.shape == keep.shape and (unseen.diff(dim=1) > 0).all()
        assert (unseen // 16 != number).all()
        for row, before, gone in zip(unseen, keep, own):
            assert set(before[~gone].tolist()) <= set(row.tolist())
    output = model(**batch, keep={"joint": keep}, output_diagnostics=True)
    found = output.diagnostics
    assert sorted(found) == ["depth_loss_hidden", "depth_loss_visible", "rgb_loss_hidden", "rgb_loss_visible"]
    torch.testing.assert_close(found["depth_loss_visible"], output.losses["depth"].detach())
    # Depth is changed where it is visible, which no loss counts: only who saw it can tell.
    shown = ~masked_by_budget(keep, 2, 16)[:, 1].view(4, 1, 4, 4)
    shown = shown.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    other = dict(batch, depth_values=batch["depth_values"] + shown)
    moved = model(**other, keep={"joint": keep}, output_diagnostics=True).diagnostics
    torch.testing.assert_close(moved["depth_loss_hidden"], found["depth_loss_hidden"], rtol=0, atol=0)
    assert not torch.equal(moved["depth_loss_visible"], found["depth_loss_visible"])


def test_save_and_load_and_fine_tune(tmp_path):
    model = multimae().eval()
    batch = random_batch(model.config)
    batch["keep"] = draw_keep(model.config, 4)
    model.save_pretrained(tmp_path)
    again = M33DForPreTraining.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**batch).loss, model(**batch).loss, atol=0, rtol=0)
    task = M33DForSemanticSegmentation.from_pretrained(tmp_path, num_labels=3).eval()
    torch.testing.assert_close(task.m33d.global_token, model.m33d.global_token)
    theirs = task.extract_features(batch["pixel_values"])["rgb"]
    torch.testing.assert_close(theirs, model.extract_features(batch["pixel_values"])["rgb"])
    assert task(pixel_values=batch["pixel_values"]).logits.shape == (4, 3, 32, 32)


def test_pictures_keep_what_was_visible_and_predict_the_rest():
    model = multimae().eval()
    batch = random_batch(model.config, batch_size=2)
    keep = torch.stack([joint([0, 5, 6], range(5)), joint([1], range(7))])
    views = output_views(model(**batch, keep={"joint": keep}, output_reconstruction=True), batch, model.config)
    assert list(views) == ["rgb", "depth", "norm_rgb"]
    for name, visible in (("rgb", (3, 1)), ("norm_rgb", (3, 1)), ("depth", (5, 7))):
        for view, number in zip(views[name], visible):
            shown = torch.from_numpy(view.visible).isfinite()[0, 0]
            assert shown.sum() == number * 64
            same = torch.from_numpy(view.reconstruction == view.target)[0, 0]
            assert same[shown].all() and not same[~shown].all()


# -- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"token_budget": 0}, "token_budget is 0; it must be above 0"),
        ({"token_budget": 32}, "keeps 32 of 32"),
        ({"token_budget": 3.5}, "integer"),
        ({"token_budget": None}, "cannot be combined"),
        ({"decoder_kind": "shared", "modalities": both()}, "cannot be combined"),
        ({"joint_encoding": False}, "a joint sequence of all"),
        ({"use_cls_token": True}, "serve the same purpose"),
        ({"use_cls_token": True, "global_token": False}, "a joint sequence of all"),
        ({"share_mask": True}, "share_mask"),
        ({"token_budget_alpha": 0.0}, "token_budget_alpha"),
        ({"modalities": [*both(), {**NORM_RGB, "target_of": "rbg"}]}, "target_of is 'rbg'"),
        ({"modalities": [*both(), {**NORM_RGB, "role": "both", "mask_ratio": 0.5}]}, "requires role 'target'"),
        ({"modalities": [*both(), {**NORM_RGB, "mask_name": "rgb_mask"}]}, "the same input_name, mask_name, channels"),
    ],
)
def test_what_cannot_work_is_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(**{**MULTIMAE, **overrides})


def test_a_second_target_and_a_global_token_ask_for_what_they_need():
    with pytest.raises(ConfigError, match="target_of requires decoder_kind"):
        tiny_config(modalities=[*both(), NORM_RGB])
    with pytest.raises(ConfigError, match="requires a joint sequence"):
        M33DModel(tiny_config(global_token=True))
    with pytest.raises(ConfigError, match="shared decoder does not support global_token"):
        M33DForPreTraining(tiny_config(global_token=True, joint_encoding=True))
    with pytest.raises(ConfigError, match="keep has no visible tokens"):
        model = multimae()
        model(**random_batch(model.config), keep=draw_keep(tiny_config(), 4))
    with pytest.raises(ConfigError, match="cannot be hidden"):
        model(**random_batch(model.config), hide={"depth": torch.ones(4, dtype=torch.bool)})
