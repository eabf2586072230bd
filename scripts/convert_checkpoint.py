"""Convert a checkpoint of another project to an M33D checkpoint folder, and report on every weight."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError, M33DError
from m33d_hf.training.processes.program import program


def _parser() -> argparse.ArgumentParser:
    from m33d_hf.weights.known.names import CONVERTED_TASKS, FORMAT_NAMES

    known = "".join(f"\n  {name}" for name in FORMAT_NAMES.values())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Formats, each recognised by its weights:{known}\nWeights of other architectures are refused by name.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, help="file, folder or Hub repository id (org/name[@revision])")
    parser.add_argument("--output", required=True, type=Path, help="output folder")
    parser.add_argument(
        "--config_overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="fields of M33DConfig (YAML values); the rest is inferred from the checkpoint",
    )
    parser.add_argument(
        "--task",
        default="pretraining",
        choices=CONVERTED_TASKS,
        help="the model to write; a task model takes the head of a fine-tuned checkpoint if ours is the same",
    )
    facts = parser.add_argument_group("settings that the weights do not show (the report lists assumptions)")
    facts.add_argument("--num_attention_heads", type=int, help="number of attention heads of the encoder")
    facts.add_argument("--decoder_num_attention_heads", type=int, help="number of attention heads of the decoder")
    facts.add_argument("--image_size", type=int, nargs="+", metavar="PIXELS", help="side, or height and width")
    facts.add_argument("--num_frames", type=int, help="frames per clip")
    facts.add_argument("--hidden_act", help="activation of the MLPs, for example gelu")
    facts.add_argument("--layer_norm_eps", type=float, help="epsilon of the layer norms, for example 1e-6")
    truth = {"true": True, "false": False}
    facts.add_argument(
        "--norm_pix_loss", type=truth.get, choices=(True, False), help="true or false: pixel targets are normalised"
    )
    parser.add_argument("--no_decoder", action="store_true", help="convert only the encoder")
    parser.add_argument(
        "--depth_encoder_init",
        default="copy",
        choices=("copy", "random"),
        help="missing depth encoder: copy the RGB encoder, or random weights",
    )
    parser.add_argument(
        "--depth_patch_init",
        default="sum",
        choices=("sum", "mean", "random"),
        help="missing depth patch embedding: RGB kernels summed or averaged over colour, or random",
    )
    parser.add_argument(
        "--inflate",
        default="none",
        choices=("none", "average", "center"),
        help="image kernel in a clip model: refuse it, spread it over the tubelet, or use it for the middle frame",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing checkpoint")
    return parser


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Fields of M33DConfig from KEY=VALUE, read as `--model.KEY VALUE` of a run is."""
    from m33d_hf.training.recipe.command_line import Word
    from m33d_hf.training.recipe.parsing import check_model_fields

    lone = next((pair for pair in pairs if "=" not in pair), None)
    if lone is not None:
        raise ConfigError(f"--config_overrides {lone!r}: write KEY=VALUE, for example image_size=[240,320].")
    words = {key: Word(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    return check_model_fields(words, "--config_overrides", prefix="")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(argv)
    from m33d_hf.weights import ConversionOptions, convert_checkpoint
    from m33d_hf.weights.facts import STATEABLE

    try:
        options = ConversionOptions(
            init_decoder=not given.no_decoder,
            depth_encoder_init=given.depth_encoder_init,
            depth_patch_init=given.depth_patch_init,
            inflate=given.inflate,
        )
        stated = {name: getattr(given, name) for name in STATEABLE}
        overrides = _overrides(given.config_overrides)
        folder = (given.input, given.output)
        report = convert_checkpoint(*folder, options, stated, overrides, given.overwrite, given.task)
    except (M33DError, OSError) as error:  # a folder that may not be written, a full disk
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.summary())
    print(f"written to {given.output}. The weights keep the licence of their origin (see WEIGHTS.md).")
    return 0


if __name__ == "__main__":
    sys.exit(program(main))
