"""Publish a run on the Hub, in one commit and one tag: publish.py outputs/depth ORG/NAME

Weights, processors, code, a card with the measured results, train_config.json without paths, a handler for Inference
Endpoints and the licence. --dry_run shows the folder and sends nothing. docs/publishing.md says what goes where.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError, M33DError
from m33d_hf.training.processes.program import program

RELEASED_ONLY = (
    "the Space installs the release of m33d-hf of this version from PyPI and does not start where there is none; "
    "--space_requirement says from where else (docs/publishing.md)"
)
PRIVATE_SPACE = "a Space cannot read a private model by itself: in its settings, give it a token as the secret HF_TOKEN"


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
    add("--space_requirement", metavar="LINE", help="how pip gets this package there; default: its release")
    add("--private", action="store_true", help="create the repository as private, and the Space")
    add("--tag", help="of the commit; default: a digest of all files")
    add("--revision", help="branch; default: main")
    add("--folder", type=Path, help="leave the files in this folder, too: a new one, or one that holds them already")
    add("--dry_run", action="store_true", help="show the files, the card and the Space, send nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(argv)
    try:
        return _run(given)
    except (M33DError, OSError) as error:  # a folder that may not be written, a full disk
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace) -> int:
    from m33d_hf.hub.options import PublishOptions
    from m33d_hf.hub.publishing import publish

    if given.space_requirement is not None and given.space is None:
        raise ConfigError("--space_requirement is for a Space; pass --space ORG/NAME too.")
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
    for note in [*done.notes, *_notes_on_space(given)]:
        print(f"note: {note}", file=sys.stderr)
    for name, size in done.files:
        print(f"{size:>12,}  {name}")
    if done.card and given.dry_run:
        print(f"\n{done.card}")
    if done.sent is None:
        if given.space is not None:
            _show_space(given)
        print(f"{plural(len(done.files), 'file')}; nothing was sent (--dry_run)")
        return 0
    print(f"{plural(len(done.files), 'file')} in {done.sent.url}, tag {done.sent.tag}")
    if given.space is not None:
        from m33d_hf.demo.space import publish_space

        made = publish_space(given.space, done.sent.repo, given.private or None, given.space_requirement)
        print(f"Space: {made.url}")
    return 0


def _notes_on_space(given: argparse.Namespace) -> list[str]:
    """What has to be there before the Space works."""
    if given.space is None:
        return []
    return [
        *([RELEASED_ONLY] if given.space_requirement is None else []),
        *([PRIVATE_SPACE] if given.private else []),
    ]


def _show_space(given: argparse.Namespace) -> None:
    """Print what the Space would hold."""
    from m33d_hf.demo.space import SDK, space_files

    kind = "a private Space" if given.private else "a Space"
    print(f"\n{given.space}: {kind} with the SDK {SDK}, created where it is missing, would get in one commit:")
    for name, text in sorted(space_files(given.repo, requirement=given.space_requirement).items()):
        print(f"{len(text.encode()):>12,}  {name}\n\n{text}")


if __name__ == "__main__":
    sys.exit(program(main))
