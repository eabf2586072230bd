"""From what was said to what is run: the resumed run, the checkpoint, then data and machine decide what is left.

The values that are found become arguments like any other, so that the run's folder records them; `Settled.origins` says
where each is from.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import Any

from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import CheckpointError, ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.checkpoints import find_checkpoints
from m33d_hf.training.recipe.arguments import RunArguments, put_value, said_by, same_setting
from m33d_hf.training.recipe.parsing import Resolved, resolve
from m33d_hf.training.recipe.run_data import build_run_source, run_rows
from m33d_hf.training.settling.architecture import DENSE, DETECTION, TAKEN, Origin, adopt, read_origin, with_modalities
from m33d_hf.training.settling.data_facts import DataFacts, look_at, look_at_depth
from m33d_hf.training.settling.layers import explicit
from m33d_hf.training.settling.machine import Machine, find_machine
from m33d_hf.training.settling.sizes import Work, by_machine, encoder_sizes, schedule, temporal_sizes

_SIZED = "the data and the machine"
# What only a trial run can tell (`m33d_hf.training.prior`): it stays open, and is as by default where none is made.
PRIOR_WEIGHT = "model.depth_prior_weight"
TRIAL_LENGTH = 0.5  # of the run, in steps


@dataclasses.dataclass(frozen=True)
class Settled:
    """The arguments of a run with nothing left open.

    Attributes:
        args: complete.
        origins: dotted key -> the layer, checkpoint or rule that set it.
        lines: what was decided, for the reader of the run's log.
        decided: dotted key -> where its value is from, of the keys that no layer set.
        left: keys that a trial run decides; until then they are as by default.
    """

    args: RunArguments
    origins: dict[str, str]
    lines: list[str]
    decided: dict[str, str]
    left: frozenset[str] = frozenset()


def run_arguments(argv: list[str], task: str) -> RunArguments:
    """The complete arguments of a command line, for programs; see `settle`. What a trial run would decide is as by
    default: for that, hand what `settle` returns to `m33d_hf.training.prior.choosing.with_prior_weight`."""
    return settle(resolve(argv, task)).args


def settle(resolved: Resolved, trains: bool = True) -> Settled:
    """Decide what a command line and its recipe leave to the checkpoint, the data and the machine.

    Args:
        resolved: what was said.
        trains: whether a model is trained; a probe of `init_from` is nothing that continues the run whose output
            folder it has, and no word of steps and their time is true of it.

    Raises:
        CheckpointError, ConversionError: `init_from` cannot be read, or does not say what nobody else says.
        ConfigError, DataError: data that cannot be used, where it has to be looked at; a checkpoint of clips for a
            method that was read for images; a key that is `auto` and that nothing decides for this task.
    """
    work = _Work(copy.deepcopy(resolved.args), dict(resolved.origins), set(resolved.open_keys), trains)
    earlier = _earlier(work.args) if trains else None
    if earlier is not None:
        work.follow(*earlier)
    elif work.args.replay is None:
        origin = read_origin(work.args) if work.args.init_from is not None else None
        if origin is not None:
            work.take(origin)
        if not work.args.eval_only:
            work.refuse_other_frames(resolved.for_clips)
        if work.open:
            work.size(origin)
        if not work.args.eval_only:
            work.refuse_open()
    left = frozenset() if work.args.eval_only or earlier is not None else frozenset(work.open & {PRIOR_WEIGHT})
    return Settled(work.args, work.origins, work.lines, work.decided, left)


def tell(lines: list[str]) -> None:
    """Print what was decided, once for all processes."""
    if lines and int(os.environ.get("RANK", "0")) == 0:
        print("\n".join(lines), file=sys.stderr, flush=True)


def _earlier(args: RunArguments) -> tuple[str, Mapping[str, Any]] | None:
    """The run that is resumed: its newest readable checkpoint and its arguments."""
    if args.eval_only or args.replay is not None:
        return None
    for folder in find_checkpoints(args.resume, args.output_dir):
        try:
            found = read_state(folder).get("args")
        except CheckpointError:
            continue  # resuming says what is wrong with it, and takes the one before
        if isinstance(found, dict):
            return str(folder), found
    return None


class _Work:
    """Arguments that are being settled."""

    def __init__(self, args: RunArguments, origins: dict[str, str], open_keys: set[str], trains: bool) -> None:
        self.args, self.origins, self.open, self.trains = args, origins, open_keys, trains
        self.lines: list[str] = []
        self.decided: dict[str, str] = {}

    def put(self, key: str, value: Any, where: str) -> None:
        """Set one key, and note where its value is from."""
        put_value(self.args, key, value)
        self.open.discard(key)
        self.origins[key] = self.decided[key] = where

    def follow(self, folder: str, before: Mapping[str, Any]) -> None:
        """A resumed run keeps what it had decided, wherever it goes on."""
        model = before.get("model")
        earlier = model if isinstance(model, dict) else {}
        started = before.get("init_from") is not None and self.args.init_from is not None
        for name in sorted(TAKEN & {*earlier, *self.args.model} if started else ()):
            key = f"model.{name}"
            if explicit(key if name != "modalities" else name, self.origins):
                continue
            if name in earlier and not same_setting(self.args.model.get(name), earlier[name]):
                self.put(key, earlier[name], f"resumed from {folder}")
            elif name not in earlier:
                del self.args.model[name]
        for key in sorted(self.open):
            section, _, name = key.partition(".")
            values = before.get(section)
            if isinstance(values, dict) and name in values:
                self.put(key, values[name], f"resumed from {folder}")

    def take(self, origin: Origin) -> None:
        """The architecture of the checkpoint; an evaluation leaves all that nobody states to the trained model."""
        args, where = self.args, f"checkpoint {self.args.init_from}"
        if args.eval_only and origin.own:
            said = {name for name in args.model if explicit(f"model.{name}", self.origins)}
            said |= {"modalities"} if explicit("modalities", self.origins) else set()
            args.model = {name: value for name, value in args.model.items() if name in said}
            self.open = {key for key in self.open if not key.startswith("model.")}
            return
        adopted = adopt(args, origin, self.origins, frozenset(self.open))
        for name, value in adopted.items():
            before = args.model.get(name, getattr(M33DConfig, name, None))
            key = f"model.{name}"
            if key in self.open or not same_setting(before, value):
                self.put(key, value, where)
        modalities = with_modalities(args, origin)
        if modalities is not None:
            self.put("model.modalities", modalities, where)
        taken = {key.removeprefix("model."): args.model[key.removeprefix("model.")] for key in self.decided}
        if taken:
            listed = ", ".join(f"{name} {value}" for name, value in taken.items() if name != "modalities")
            more = ["modalities"] if "modalities" in taken else []
            self.lines.append(f"taken from {args.init_from}: {', '.join(filter(None, [listed, *more]))}")

    def refuse_other_frames(self, for_clips: bool | None) -> None:
        """A method's section, and whether it has one, was chosen before the checkpoint said how many frames."""
        args = self.args
        frames = int(args.model.get("num_frames", M33DConfig.num_frames))
        if for_clips is None or for_clips == (frames > 1):
            return
        if for_clips:
            raise ConfigError(
                f"model.num_frames auto{said_by('model.num_frames', self.origins)} is 1: no checkpoint of clips says "
                f"otherwise, but the method {args.method} was read for clips. Pass --model.num_frames N, of each clip."
            )
        raise ConfigError(
            f"{args.init_from} was trained on clips of {plural(frames, 'frame')}, but the method {args.method} was "
            f"read for images, as nothing states model.num_frames. Pass --model.num_frames {frames} to pre-train on "
            "clips (with a recipe for clips, whose stage is null), or --model.num_frames 1 for images."
        )

    def size(self, origin: Origin | None) -> None:
        """Look at the data and the machine, and decide the rest."""
        args, machine = self.args, find_machine(self.args)
        clip = self._clips()
        if args.task == DETECTION:  # before an evaluation, too: features are those of the training by their precision
            no_frame_twice = {"data.keep_decoded_gb": 0.0}
            self._decide({**by_machine(machine), **no_frame_twice, "logging.every_steps": args.logging.every_steps})
        if args.eval_only:  # nothing is trained, and the model is what it is
            self._decide({"evaluation.batch_size": 32, "data.num_workers": machine.workers})
            return
        if args.task == DETECTION:
            self._decide({"evaluation.batch_size": 4 * args.train.batch_size})
            width = int((origin.fields if origin else {}).get("hidden_size", M33DConfig.hidden_size))
            heads = int(args.model.get("temporal_num_attention_heads", M33DConfig.temporal_num_attention_heads))
            attends = args.model.get("temporal_model") == "transformer"
            self._fill("model", temporal_sizes(width, heads if attends else 1))
            return
        source, rows, data = self._look(clip)
        known = {name: value for name, value in args.model.items() if f"model.{name}" not in self.open}
        self._fill("model", encoder_sizes(machine, data, known, clip))
        if self.open & {"model.depth_mean", "model.depth_std", "model.max_depth"}:
            depth = look_at_depth(source, rows)
            found = {"depth_mean": depth.mean, "depth_std": depth.std, "max_depth": depth.farthest}
            self._fill("model", found)
        config = M33DConfig(**args.model)
        stated = {f"train.{name}": getattr(args.train, name) for name in ("batch_size", "accumulation", "max_steps")}
        stated = {key: value for key, value in stated.items() if key not in self.open}
        stated["train.epochs"] = args.train.epochs
        self._decide(schedule(args.task, machine, data, config, stated))
        self.lines += self._said(machine, data, config)

    def refuse_open(self) -> None:
        """Refuse what is still open: the run would take a stand-in for it, one step for a whole training.

        Fields of the model are left out: those that the task uses are decided by then, or are the first stage's.
        """
        undecided = sorted(key for key in self.open if not key.startswith("model."))
        if not undecided:
            return
        said = ", ".join(f"{key} auto{said_by(key, self.origins)}" for key in undecided)
        raise ConfigError(
            f"{said}: nothing decides {agree(len(undecided), 'it', 'them')} for {self.args.task}. State a value, or "
            "leave it to the recipe."
        )

    def _clips(self) -> bool:
        frames = self.args.model.get("num_frames")
        if frames is None:
            return self.args.task not in (*DENSE, "pretraining")
        return bool(frames > 1)

    def _look(self, clip: bool) -> tuple[Any, list[int] | None, DataFacts]:
        frames = self.args.model.get("num_frames") or (8 if clip else 1)
        config = M33DConfig(num_frames=frames, tubelet_size=1)
        source = build_run_source(self.args, config, train=True)
        rows = run_rows(self.args, source, train=True)
        return source, rows, look_at(source, rows, self._evaluation_source(config))

    def _evaluation_source(self, config: M33DConfig) -> Any:
        """None where nothing is evaluated. Evaluation data that cannot be used is the run's to complain about."""
        data = self.args.data
        if data.eval_split is None and data.eval_root is None:
            return None
        try:
            return build_run_source(self.args, config, train=False)
        except DataError:
            return None

    def _fill(self, section: str, values: Mapping[str, Any]) -> None:
        self._decide({f"{section}.{name}": value for name, value in values.items()})

    def _decide(self, values: Mapping[str, Any]) -> None:
        """By dotted keys, those that are open."""
        for key, value in values.items():
            if key in self.open:
                self.put(key, value, _SIZED)

    def _said(self, machine: Machine, data: DataFacts, config: M33DConfig) -> list[str]:
        args = self.args
        height, width = config.image_height_width
        patch = "x".join(map(str, dict.fromkeys(config.patch_height_width)))
        unit = f"{config.num_frames} frames of {height}x{width}" if config.is_clip_model else f"{height}x{width}"
        what = plural(data.samples, "clip" if config.is_clip_model else "frame")
        model = f"ViT of width {config.hidden_size}, {plural(config.num_hidden_layers, 'layer')}, patch {patch}"
        seen = f"{what}, {machine}: {model}, {unit}"
        if not self.trains:
            return [seen, *data.notes]
        steps = args.train.max_steps or 0
        effective = args.train.batch_size * args.train.accumulation * machine.processes
        seconds = Work(args.task, machine, data, config, effective).seconds(steps)
        length = plural(steps, "step") if args.train.max_steps else f"{args.train.epochs:g} epochs"
        about = f"{length}, about {duration(seconds)}" if args.train.max_steps else length
        lines = [f"{seen}, batch {effective}, {about}"]
        if PRIOR_WEIGHT in self.open:
            lines.append(
                f"before that, a trial of {shorter(steps) or 'half the'} steps on four fifths of the training frames "
                "chooses how much the mean depth per position shares in predictions (model.depth_prior_weight)"
            )
        return [*lines, *data.notes]


def shorter(steps: int) -> int:
    """Steps of a trial run; 0 stays."""
    return steps and max(1, round(TRIAL_LENGTH * steps))


def duration(seconds: float) -> str:
    """A rough time in words: "40 seconds", "2.5 minutes", "3 hours"."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} seconds"
    if seconds < 5400:
        return f"{round(seconds / 30) / 2:g} minutes"
    return f"{round(seconds / 1800) / 2:g} hours"
