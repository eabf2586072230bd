"""Publish a run on the Hub, in one commit and one tag: publish.py outputs/depth ORG/NAME

Weights, processors, code, a card with the measured results, train_config.json without paths, a handler for Inference
Endpoints and the licence. --dry_run shows the folder and sends nothing. docs/publishing.md says what goes where.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.program import program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, help="output folder of a run, a folder in its checkpoints/, or a saved model")
    add("repo", help="ORG/NAME on the Hub; created where it is missing")
    add("--evaluation", type=Path, nargs="+", default=[], help="what --eval_only wrote; default: found in the run")
    add("--allow_unevaluated", action="store_true", help="publish without an evaluation; the card says so")
    add("--license", help="of the weights, such as apache-2.0; default: what they inherit (WEIGHTS.md)")
    add("--dataset_name", help="name of your evaluation data for the card; default: not named")
    add("--benchmark", metavar="ORG/DATASET:TASK", help="benchmark of the Hub that was measured, for .eval_results")
    add("--as-stock", "--as_stock", action="store_true", help="export to VideoMAE or ViT: no code in the repository")
    add("--include_pictures", action="store_true", help="upload the run's pictures, which show its data")
    add("--space", metavar="ORG/NAME", help="also make or renew a Space with the web page for this model")
    add("--private", action="store_true", help="create the repository as private")
    add("--tag", help="of the commit; default: a digest of all files")
    add("--revision", help="branch; default: main")
    add("--folder", type=Path, help="leave the files in this new folder, too")
    add("--dry_run", action="store_true", help="show the files and the card, send nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(argv)
    try:
        return _run(given)
    except M33DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace) -> int:
    from m33d_hf.hub.options import PublishOptions
    from m33d_hf.hub.publishing import publish

    options = PublishOptions(
        repo=given.repo,
        evaluations=given.evaluation,
        allow_unevaluated=given.allow_unevaluated,
        licence=given.license,
        dataset_name=given.dataset_name,
        benchmark=given.benchmark,
        as_stock=given.as_stock,
        include_pictures=given.include_pictures,
        private=given.private or None,
        tag=given.tag,
        revision=given.revision,
        space=given.space,
    )
    done = publish(given.run, options, given.folder, given.dry_run)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    for name, size in done.files:
        print(f"{size:>12,}  {name}")
    if done.card and given.dry_run:
        print(f"\n{done.card}")
    if done.sent is None:
        print(f"{len(done.files)} files; nothing was sent (--dry_run)")
        return 0
    print(f"{len(done.files)} files in {done.sent.url}, tag {done.sent.tag}")
    if given.space is not None:
        print(f"Space: {_send_space(given.space, done.sent.repo, given.private or None)}")
    return 0


def _send_space(space: str, model: str, private: bool | None) -> str:
    """Publish the web page for a published model; returns its address."""
    from tempfile import TemporaryDirectory

    from m33d_hf.demo.space import write_space
    from m33d_hf.modeling.hub_upload_m33d import Destination, send_folder

    with TemporaryDirectory() as folder:
        write_space(folder, model)
        to = Destination(space, kind="space", private=private, space_sdk="gradio")
        return send_folder(Path(folder), to, f"The web page for {model}").url


if __name__ == "__main__":
    sys.exit(program(main))
