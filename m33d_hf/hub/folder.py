"""Writes the folder that is published: weights, processors, code, card, handler, licence, and the run's own record."""

from __future__ import annotations

import json
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from m33d_hf.errors import ExportError, HubError
from m33d_hf.hub.card import template, write_card
from m33d_hf.hub.examples import write_example
from m33d_hf.hub.leaks import refuse_leaks, secrets_of
from m33d_hf.hub.lineage import choose_licence, trace
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.results import benchmark_entries
from m33d_hf.hub.scrubbing import scrub_initialisation, scrub_training
from m33d_hf.hub.source import Source
from m33d_hf.inference.loading import load_image_processor, load_model, load_video_processor
from m33d_hf.weights.export import export_model

HANDLER = "handler.py"
# What publishing writes, and removes from a repository where a new folder has none of it.
OWN = (
    "*_m33d.py", "model*.safetensors", "model.safetensors.index.json", "*preprocessor_config.json", HANDLER,
    "requirements.txt", "initialisation.json", "train_config.json", "export.json", ".eval_results/m33d.yaml",
    "pictures/*.png", "examples/room.*",
)  # fmt: skip
_PICTURES = "pictures"


def write_folder(source: Source, options: PublishOptions, folder: Path) -> None:
    """Write everything into an empty folder.

    Raises:
        HubError: no evaluation, no licence, or something in it that belongs to this machine.
        CheckpointError: the model cannot be loaded. ExportError: it has no stock class.
    """
    _require_evaluation(source, options)
    lineage = trace(source.trained)
    licence = choose_licence(lineage, options.licence)
    if options.as_stock:
        _write_stock(source, folder)
    else:
        _write_model(source, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    example = None if source.task == "phases" else write_example(folder, int(config.get("num_frames") or 1) > 1)
    text = write_card(source, lineage, licence, options, config, example, (folder / HANDLER).is_file())
    (folder / "README.md").write_text(text, encoding="utf-8")
    if source.trained is not None:
        _write_json(folder / "train_config.json", scrub_training(source.trained, lineage))
    report = source.run / "initialisation.json"
    if report.is_file():
        content = json.loads(report.read_text(encoding="utf-8"))
        _write_json(folder / "initialisation.json", scrub_initialisation(content, lineage))
    entries = benchmark_entries(source, options)
    if entries:
        (folder / ".eval_results").mkdir()
        (folder / ".eval_results" / "m33d.yaml").write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")
    _write_licence(folder)
    if options.include_pictures:
        _copy_pictures(source, folder)
    refuse_leaks(folder, secrets_of(source.arguments, source.run, source.weights))


def _require_evaluation(source: Source, options: PublishOptions) -> None:
    if source.evaluations or options.allow_unevaluated:
        return
    left = "".join(f" {note}." for note in source.notes)
    raise HubError(
        f"{source.weights} has no evaluation, so its card would have no results.{left} Evaluate it: python "
        f"scripts/{source.kind.script} --recipe {source.arguments.get('recipe') or 'RECIPE'} --init_from "
        f"{source.weights} --eval_only true --output_dir {source.run / 'evaluation'}; or pass --allow_unevaluated, "
        "and the card says that nothing is known."
    )


def _write_model(source: Source, folder: Path) -> None:
    """Weights, code and processors, as save_pretrained writes them; every weight must be there."""
    name = str(source.weights)
    model = load_model(name, source.task)
    model.save_pretrained(folder)
    clip = getattr(model.config, "is_clip_model", False)
    (load_video_processor if clip else load_image_processor)(name).save_pretrained(folder)
    if source.task != "phases":  # whole videos need the package's reading
        (folder / HANDLER).write_text(template("endpoint_handler.py"), encoding="utf-8")
        (folder / "requirements.txt").write_text(_requirements(clip), encoding="utf-8")


def _requirements(clip: bool) -> str:
    """For Inference Endpoints: what their image may lack."""
    wanted = ["torch", "transformers", "pillow", *(["av"] if clip else [])]
    lines = []
    for requirement in metadata.requires("m33d-hf") or []:
        stated = requirement.partition(";")[0].strip()
        if "extra ==" not in requirement and re.split(r"[^A-Za-z0-9_-]", stated)[0] in wanted:
            lines.append(stated)
    return "\n".join(sorted(lines)) + "\n"


def _write_stock(source: Source, folder: Path) -> None:
    exported = folder / "exported"
    try:
        export_model(str(source.weights), exported, "transformers")
    except ExportError as error:
        raise HubError(f"--as-stock: {error}") from error
    for path in list(exported.iterdir()):
        path.rename(folder / path.name)
    exported.rmdir()
    report = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    report.pop("seal", None)
    _write_json(folder / "export.json", {name: value for name, value in report.items() if name != "of"})


def _write_licence(folder: Path) -> None:
    """Licence of the code; that of the weights stands in the card."""
    found = metadata.distribution("m33d-hf").read_text("licenses/LICENSE")
    checkout = Path(__file__).resolve().parents[2] / "LICENSE"
    if found is None and checkout.is_file():
        found = checkout.read_text(encoding="utf-8")
    if found is None:
        raise HubError("The package was installed without its LICENSE; install it again, as README.md says.")
    (folder / "LICENSE").write_text(found, encoding="utf-8")


def _copy_pictures(source: Source, folder: Path) -> None:
    found = sorted((source.run / _PICTURES).glob("*.png"))
    if not found:
        raise HubError(f"--include_pictures: {source.run / _PICTURES} holds no pictures; leave it out.")
    (folder / _PICTURES).mkdir()
    for path in found:
        shutil.copyfile(path, folder / _PICTURES / path.name)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
