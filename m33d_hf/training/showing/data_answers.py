"""Commands that answer an error about the data of a run: another option, or the doctor."""

from __future__ import annotations

from pathlib import Path

from m33d_hf.data.depth.unit_guess import units_to_choose
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.showing.command_words import Command, only_keys, words_of
from m33d_hf.training.tasks.detection.first_stage import NO_FIRST_STAGE
from m33d_hf.training.tasks.semantic_segmentation import NO_CLASSES


def about_data(error: Exception, args: RunArguments, command: Command) -> list[tuple[str, str]]:
    """(purpose, command line) of each; nothing for other errors, and where no files are read.

    Args:
        error: that ended the run.
        args: of the run.
        command: that started it.
    """
    units = units_to_choose(str(error))
    if units:
        return [
            (f"if the median distance is {median}", command.changed(data__options__depth_unit=unit).line())
            for unit, median in units.items()
        ]
    if not (args.data.root or args.data.mixture) or _is_missing(args.data.root):
        return []
    if isinstance(error, ConfigError) and NO_FIRST_STAGE in str(error) and args.recipe == "own/phases":
        clips = ["--recipe", "own/phases_clips", *only_keys(command.words, ("data.",))]
        return [("phases of single clips, the first stage", command.of_task("video_classification", clips).line())]
    words = only_keys(command.words, ("recipe", "method", "stage", "data."))
    if args.recipe is None and "--data.source" not in " ".join(words):
        words += words_of({"data.source": args.data.source})
    checked = command.other("check_data.py", words).line()
    if isinstance(error, ConfigError) and NO_CLASSES in str(error):
        return [("see which classes the label maps hold", checked)]
    return [("see what is wrong with the data", checked)] if isinstance(error, DataError) else []


def _is_missing(root: str | list[str] | None) -> bool:
    """Whether a folder is not there: the doctor would say no more."""
    folders = [root] if isinstance(root, str) else list(root or [])
    return not all(Path(folder).expanduser().exists() for folder in folders)
