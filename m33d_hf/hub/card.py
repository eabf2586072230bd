"""The model card: a template filled from the run's own files."""

from __future__ import annotations

from importlib import resources
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from m33d_hf import __version__
from m33d_hf.data.clock import clock
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.results import headline, model_index, result_rows, training_time
from m33d_hf.hub.source import Source
from m33d_hf.training.settling.lineage import NON_COMMERCIAL, Lineage

TEMPLATES = "m33d_hf.model_cards"


def template(name: str) -> str:
    """Text of a file beside the card templates."""
    return (resources.files(TEMPLATES) / name).read_text(encoding="utf-8")


def write_card(
    source: Source,
    lineage: Lineage,
    licence: str,
    options: PublishOptions,
    config: dict[str, Any],
    example: str | None,
    handler: bool,
) -> str:
    """Text of README.md.

    Args:
        source: what is published.
        lineage: of the weights.
        licence: of the weights.
        options: of publishing.
        config: config.json as it is published.
        example: file in the repository for the widget; None without one.
        handler: whether the repository has one for Inference Endpoints.
    """
    data = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag=source.kind.pipeline,
        tags=_tags(source, options),
        model_name=options.repo.partition("/")[2],
        eval_results=model_index(source, options) or None,
    )
    if example is not None and source.kind.pipeline is not None:
        address = f"https://huggingface.co/{options.repo}/resolve/main/{example}"
        data.widget = [{"src": address, "example_title": "rendered room"}]  # type: ignore[attr-defined]
    content = _content(source, lineage, licence, options, config, example) | {"handler": handler}
    return str(ModelCard.from_template(data, template_str=template("card_template.md"), **content))


def _tags(source: Source, options: PublishOptions) -> list[str]:
    tags = ["m33d", "vision", source.kind.task.replace("_", "-")]
    return tags if options.as_stock else [*tags, "custom_code", "rgb-d"]


def _content(
    source: Source, lineage: Lineage, licence: str, options: PublishOptions, config: dict[str, Any], example: str | None
) -> dict[str, Any]:
    trained = source.trained or {}
    plan, arguments = trained.get("plan") or {}, source.arguments
    seconds = training_time(source.rows, trained.get("effective_batch"))
    return {
        "repo": options.repo,
        "kind": source.task,
        "words": source.kind.words,
        "pipeline": source.kind.pipeline,
        "auto": config["architectures"][0] if options.as_stock else source.kind.auto,
        "stock": options.as_stock,
        "clip": int(config.get("num_frames") or 1) > 1,
        "example": example,
        "example_name": "clip.mp4" if int(config.get("num_frames") or 1) > 1 else "picture.png",
        "space": options.space,
        "config": config,
        "licence": licence,
        "non_commercial": licence == NON_COMMERCIAL,
        "lineage": lineage.steps,
        "results": result_rows(source, options),
        "chosen": {name: f"{value:.4f}" for name, value in headline(source, source.chosen).items() if name != "loss"},
        "benchmark": options.benchmark,
        "trained": bool(source.trained),
        "steps": plan.get("total_steps"),
        "samples": plan.get("num_samples"),
        "batch": trained.get("effective_batch"),
        "processes": trained.get("world_size"),
        "seed": arguments.get("seed"),
        "commit": trained.get("commit"),
        "hardware": str(trained.get("device", "unknown")).split(":")[0],
        "time": None if seconds is None else clock(seconds),
        "versions": trained.get("versions") or {},
        "version": __version__,
        "script": source.kind.script,
        "classes": len(config.get("id2label") or {}),
    }
