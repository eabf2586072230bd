"""What to type next: after a run, a stop, a dry run, an evaluation, and after errors that have an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from pathlib import Path

from m33d_hf.data.files.markers import is_complete
from m33d_hf.data.source import Source
from m33d_hf.data.sources import source_options
from m33d_hf.data.sources.frames.colour_paths import colour_path
from m33d_hf.errors import (
    CheckpointError,
    ConfigError,
    ConversionError,
    NonFiniteLossError,
    ResumeError,
    WorkerLostError,
    WorkerStartError,
)
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.recipe.arguments import RunArguments, same_setting
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.recipes import recipe_chain, recipe_names
from m33d_hf.training.showing.command_words import Command, only_keys, without_keys, words_of
from m33d_hf.training.showing.data_answers import about_data

# Where a run has no folder of its own: the only word that a user must replace.
PHOTOS, VIDEOS, FRAMES = "PHOTOS", "VIDEOS", "FRAMES"

# (task, source) -> recipes, the first one that exists and is for that task; "" is any other source.
_RECIPES = {
    ("depth_estimation", "rooms"): ("rooms/depth",),
    ("depth_estimation", "nyuv2"): ("nyuv2_depth",),
    ("depth_estimation", ""): ("own/depth", "nyuv2_depth"),
    ("semantic_segmentation", "rooms"): ("rooms/semseg",),
    ("semantic_segmentation", "nyuv2"): ("nyuv2_semseg",),
    ("semantic_segmentation", "scannet"): ("scannet_semseg",),
    ("semantic_segmentation", ""): ("own/semseg", "nyuv2_semseg"),
    ("video_classification", "rooms"): ("rooms/actions",),
    ("video_classification", "procedures"): ("rooms/phases_finetune",),
    ("video_classification", "phases"): ("own/phases_clips", "orar_finetune"),
    ("video_classification", "ucf101"): ("ucf101_finetune",),
    ("video_classification", ""): ("own/video_classification", "ucf101_finetune"),
    ("action_detection", "procedures"): ("rooms/phases_temporal",),
    ("action_detection", ""): ("own/phases", "orar_temporal"),
}
_PHASES = ("phases", "procedures")
_LABELLED_CLIPS = "fine-tune it on labelled clips"
_DENSE = {head.task for head in HEADS if head.images_only}  # also with encoders of clips
# Sources whose folders hold pictures or videos, which predict.py reads; others hold recordings, tables or archives.
_OF_FILES = ("folder", "tum", "ucf101", "phases")
# Of a command line, what another run on the same data with the same encoder has to be told again.
_ENCODER = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "num_frames", "tubelet_size")  # fmt: skip
_KEPT = ("data.", "cpu", "cpu_threads", "num_processes", "train.precision", *(f"model.{name}" for name in _ENCODER))
# Which of them pre-training alone has.
_PRETRAINING_ONLY = ("data.mixture", "data.skip_list", "data.label_fraction")
_OF_ONE_RUN = ("init_from", "init.", "output_dir", "resume", "replay", "dry_run", "eval_only", "hub.")
_WHERE = ("data.source", "data.root", "data.eval_root", "data.frame_stride")


@dataclass(frozen=True)
class NextCommand:
    """A command and what it is for.

    Attributes:
        purpose: in a few words.
        line: for a shell to read.
    """

    purpose: str
    line: str


def told(commands: Sequence[NextCommand], title: str = "next:") -> list[str]:
    """Lines for the terminal; a command stands alone on its line, to be copied."""
    return (
        [title, *(line for each in commands for line in (f"  # {each.purpose}", f"  {each.line}"))] if commands else []
    )


def to_continue(args: RunArguments, command: Command) -> list[NextCommand]:
    """After a stop: the same command, which resumes; from its own folder, wherever the run came from, once that has
    checkpoints."""
    if not _has_checkpoints(args):
        return [NextCommand("start it again: it had no checkpoint of its own yet", command.line())]
    again = command.changed(["resume"]) if only_keys(command.words, ["resume"]) else command
    return [NextCommand("continue where it stopped", again.line())]


def after_dry_run(command: Command) -> list[NextCommand]:
    """The run itself."""
    return [NextCommand("start it", command.changed(["dry_run"]).line())]


def after_evaluation(args: RunArguments, command: Command) -> list[NextCommand]:
    """Pictures of what was evaluated."""
    clips = args.task in ("action_detection", "video_classification") or int(args.model.get("num_frames", 1)) > 1
    return _prediction(args, command, str(args.init_from), VIDEOS if clips else PHOTOS)


def after_run(args: RunArguments, command: Command, source: Source, clips: bool) -> list[NextCommand]:
    """What a finished run is good for.

    Args:
        args: of the run.
        command: that started it.
        source: its training data.
        clips: whether its model takes clips.
    """
    if args.task == "pretraining":
        return _after_pretraining(args, command, source, clips)
    output = args.output_dir
    judged = command.changed(_OF_ONE_RUN, init_from=output, eval_only=True, output_dir=f"{output}/evaluation")
    found = []
    if args.data.eval_split is not None or args.data.eval_root is not None:
        found.append(NextCommand("evaluate the final weights again, or other data (--data.eval_root)", judged.line()))
    found += _prediction(args, command, output, VIDEOS if clips else PHOTOS)
    if args.task in _DENSE:
        found.append(NextCommand("more pictures", command.other("visualize.py", ["--model", output]).line()))
    if args.task in ("video_classification", "semantic_segmentation") and args.init_from is not None:
        words = [*without_keys(command.words, _OF_ONE_RUN), *words_of({"init_from": args.init_from})]
        dense = ["--dense"] if args.task == "semantic_segmentation" else []
        probe = command.other("run_probe.py", [*dense, *words, "--output_dir", f"{output}-probe"])
        found.append(NextCommand("compare with the frozen encoder that it started from", probe.line()))
    if args.task == "video_classification" and args.data.source in _PHASES:
        found += _tuning("action_detection", "phases of whole videos from these clips", args, command)
    return found


def _after_pretraining(args: RunArguments, command: Command, source: Source, clips: bool) -> list[NextCommand]:
    pictures = command.other("visualize.py", ["--model", args.output_dir])
    found = [NextCommand("see its reconstructions", pictures.line())]
    if args.stage == 1:
        return [*_second_stage(args, command)]
    if clips and (source.action_names is not None or args.data.source in _PHASES):
        return [*found, *_tuning("video_classification", _LABELLED_CLIPS, args, command)]
    spec = source.depth_spec
    if spec is not None and spec.kind == "metric":
        found += _tuning("depth_estimation", "fine-tune it for depth", args, command)
    if source.class_names is not None or spec is None:
        found += _tuning("semantic_segmentation", "fine-tune it for segmentation", args, command)
    return [*found, *(_tuning_elsewhere(args, command) if clips else [])]


def _tuning_elsewhere(args: RunArguments, command: Command) -> list[NextCommand]:
    """Classification of other videos, with the recipe's reader: these clips have no classes."""
    words = without_keys(command.words, ("data.",))
    elsewhere = replace(args, data=replace(args.data, source="ucf101", root=VIDEOS, eval_root=None))
    purpose = f"{_LABELLED_CLIPS} (put your own folder for {VIDEOS})"
    return _tuning("video_classification", purpose, elsewhere, replace(command, words=tuple(words)))


def _second_stage(args: RunArguments, command: Command) -> list[NextCommand]:
    recipe = str(args.recipe).replace("stage1", "stage2")
    settings: dict[str, object] = {"init_from": args.output_dir, "output_dir": f"{args.output_dir}-stage2"}
    if recipe != args.recipe and recipe in recipe_names():
        settings["recipe"] = recipe
    else:
        settings["stage"] = 2
    second = command.changed([*_OF_ONE_RUN, "stage"], **settings)
    return [NextCommand("second stage: masked modelling", second.line())]


def _tuning(task: str, purpose: str, args: RunArguments, command: Command) -> list[NextCommand]:
    """The script of another task on the same data, from the weights of this run."""
    recipe = _recipe(task, args)
    if recipe is None:
        return []
    ending = {"depth_estimation": "depth", "semantic_segmentation": "semseg", "action_detection": "temporal"}
    output = f"{args.output_dir}-{ending.get(task, 'finetuned')}"
    clips_only = ("model.num_frames", "model.tubelet_size") if task in _DENSE else ()
    kept = without_keys(only_keys(command.words, _KEPT), [*_PRETRAINING_ONLY, *clips_only])
    words = ["--recipe", recipe, *kept]
    words += _missing(task, words, args)
    if args.data.mixture is not None and _lacks_root(args) and "--data.root" not in words:
        words += ["--data.root", FRAMES]  # the members are for pre-training
        purpose += f" (put the folder of its data for {FRAMES})"
    words += words_of({"init_from": args.output_dir, "output_dir": output})
    return [NextCommand(purpose, command.of_task(task, words).line())]


def _lacks_root(args: RunArguments) -> bool:
    stated = args.data.root is not None or "root" in args.data.options
    return not stated and source_options(args.data.source).get("root") is Parameter.empty


def _missing(task: str, words: Sequence[str], args: RunArguments) -> list[str]:
    """Where the data are, and the frames of a clip, as far as the user's own words and the recipe do not say it.

    The other sizes of the encoder come with the checkpoint.
    """
    try:
        resolved = resolve(list(words), task)
    except ConfigError:
        return []
    here, there = args.data, resolved.args.data
    absent = {
        key: value
        for key in _WHERE
        if (value := getattr(here, key[5:])) is not None and not same_setting(getattr(there, key[5:]), value)
    }
    usual, name = M33DConfig().num_frames, "num_frames"
    mine, theirs = (each.get(name, usual) for each in (args.model, resolved.args.model))
    if f"model.{name}" not in resolved.open_keys and name in resolved.args.model and not same_setting(mine, theirs):
        absent[f"model.{name}"] = mine
    return words_of(absent)


def _recipe(task: str, args: RunArguments) -> str | None:
    """The recipe for a task: of the family (rooms/, own/) that this run's is of, else for its source."""
    known, family = set(recipe_names()), str(args.recipe).rpartition("/")[0]
    every = [name for (kind, _), names in _RECIPES.items() if kind == task for name in names]
    usual = _RECIPES[(task, "")]
    fitting = _RECIPES.get((task, args.data.source), usual)
    related = [name for name in (*fitting, *usual, *every) if family and name.startswith(f"{family}/")]
    for name in (*related, *fitting):
        if name in known and _task_of(name) == task:
            return name
    return None


def _task_of(recipe: str) -> str:
    tasks = [tree["task"] for _, tree in recipe_chain(recipe) if "task" in tree]
    return str(tasks[-1]) if tasks else "pretraining"


def _prediction(args: RunArguments, command: Command, model: str, mine: str) -> list[NextCommand]:
    folders = _pictures(args, clips=mine == VIDEOS) if args.data.source in _OF_FILES else []
    words = ["--model", model, "--input", *(folders or [mine]), "--output", f"{model}/predictions"]
    mine = "" if folders else f" (put your own folder for {mine})"
    return [NextCommand(f"predictions of files as pictures{mine}", command.other("predict.py", words).line())]


def _pictures(args: RunArguments, clips: bool) -> list[str]:
    """What names the pictures or videos of a run's data and no maps beside them; empty where nothing does."""
    data = args.data
    root = data.eval_root or data.root
    roots = root if isinstance(root, list) else [] if root is None else [root]
    if data.source != "folder":
        return roots
    options = {**data.options, **data.eval_options} if data.eval_root else data.options
    found = [colour_path(folder, options, clips) for folder in roots]
    return [path for path in found if path is not None] if None not in found else []


def after_error(error: Exception, args: RunArguments | None, command: Command) -> list[NextCommand]:
    """What answers an error of ours; nothing where only the user can know.

    Args:
        error: that ended the run.
        args: of the run; None where they could not be read.
        command: that started it.
    """
    if args is None:
        return []
    if isinstance(error, NonFiniteLossError):
        captured = sorted(Path(args.output_dir).glob("nonfinite/*"), key=lambda path: path.stat().st_mtime)
        replay = [_replay(command, path) for path in captured[-1:]]
        return [*replay, _gentler(args, command)]
    refused = isinstance(error, ConfigError) and "none" in only_keys(command.words, ["resume"])
    if isinstance(error, ResumeError) or (refused and _has_checkpoints(args)):
        # A checkpoint of another recipe would be refused there as well; where the folder was, it goes on in a new one.
        dropped = ["output_dir"] if _has_checkpoints(args) else ["output_dir", "resume"]
        fresh = command.changed(dropped, output_dir=unused(args.output_dir))
        return [
            NextCommand("start a new run with these settings", fresh.line()),
            *(to_continue(args, command) if refused else []),
        ]
    if isinstance(error, (WorkerLostError, WorkerStartError)):
        return to_continue(args, command)
    saved = _has_checkpoints(args) or _latest(args) is not None
    if isinstance(error, CheckpointError) and not isinstance(error, ConversionError) and saved:
        return to_continue(args, command)
    return [NextCommand(*answer) for answer in about_data(error, args, command)]


def _gentler(args: RunArguments, command: Command) -> NextCommand:
    """After NaN: what decides the result may not change in a resumed run, which would repeat it bit for bit."""
    rate = args.optim.learning_rate / 2
    settings: dict[str, object] = {"output_dir": unused(args.output_dir), "optim.learning_rate": rate}
    latest = _latest(args)
    start = [] if latest is None else ["init_from", "init."]
    if latest is not None:
        settings["init_from"] = str(latest)
    since = "from the beginning" if latest is None else f"from the weights of {latest.name}"
    fresh = command.changed(["output_dir", "resume", *start], **settings)
    return NextCommand(f"train anew {since} at half the learning rate", fresh.line())


def _has_checkpoints(args: RunArguments) -> bool:
    return any(Path(args.output_dir).glob("checkpoints/step_*"))


def _latest(args: RunArguments) -> Path | None:
    """The newest complete checkpoint of the run; while it has none, that of the run that it resumed."""
    own = CheckpointStore(args.output_dir).latest()
    if own is not None or args.resume in (None, "none", "auto"):
        return own
    return Path(args.resume) if is_complete(Path(args.resume)) else CheckpointStore(args.resume).latest()


def unused(folder: str) -> str:
    """The folder's name with the first number that no folder beside it has."""
    number = 2
    while Path(f"{folder}-{number}").exists():
        number += 1
    return f"{folder}-{number}"


def _replay(command: Command, captured: Path) -> NextCommand:
    return NextCommand("reproduce the step", command.changed(replay=str(captured)).line())
