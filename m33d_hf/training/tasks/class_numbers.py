"""The mapping from annotation numbers to classes, in training, in every evaluation of the model, and in its folder.

`id2label` of a configuration has the names in id order, but not the numbers used by annotation files. These are stored
in `classes.json` beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m33d_hf.data.labels.class_table import ClassTable, read_class_table
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources import source_options
from m33d_hf.errors import CheckpointError
from m33d_hf.training.processes.beside import CLASSES, find_beside, read_beside, write_beside
from m33d_hf.training.recipe.arguments import RunArguments


def stated_classes(args: RunArguments, train: bool) -> ClassTable | None:
    """The table of `phase_names` in the run's options; None if not given.

    A file name is looked up under both roots, so that evaluation data in another folder is read with the training
    table.

    Raises:
        ConfigError, DataError, CorruptFileError: see `read_class_table`.
    """
    data = args.data
    own = None if train else data.eval_options.get("phase_names")
    given = data.options.get("phase_names") if own is None else own
    if given is None or (isinstance(given, ClassTable) and given.assumed):
        return None
    roots = [data.root, data.eval_root] if own is None else [data.eval_root or data.root]
    folders = [folder for root in roots for folder in (root if isinstance(root, list) else [root])]
    return read_class_table(given, *(Path(folder).expanduser() for folder in folders if folder is not None))


def evaluation_classes(args: RunArguments, names: Sequence[str]) -> ClassTable:
    """The table used for evaluation data, in the order of the model's classes.

    The run's own table takes precedence over the one beside the model of `init_from`. A table of classes other than the
    model's is returned unchanged, so that the two can be compared.

    Raises:
        ConfigError, DataError, CorruptFileError: see `read_class_table`.
        CheckpointError: `classes.json` beside the model is damaged.
    """
    stated = stated_classes(args, train=False)
    if stated is not None:
        return stated.onto(names) if set(stated.names) == set(names) else stated
    stored = trained_classes(args.init_from)
    if stored is not None and set(stored.names) == set(names):
        return stored.onto(names)
    return ClassTable(tuple(names))


def assume_classes(args: RunArguments) -> None:
    """Interpret numbers in annotations as in the training of `init_from`, unless the arguments say otherwise.

    Sets `phase_names` in the options of `args`.

    Raises:
        CheckpointError: `classes.json` beside the model is damaged.
    """
    if "phase_names" not in source_options(args.data.source) or args.data.options.get("phase_names") is not None:
        return
    stored = trained_classes(args.init_from)
    if stored is not None and stored.numbers is not None:
        args.data.options["phase_names"] = replace(stored, assumed=True)


def trained_classes(init_from: str | None) -> ClassTable | None:
    """The table beside a trained model, None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    file = find_beside(init_from, CLASSES)
    if file is None:
        return None
    try:
        return ClassTable.from_dict(read_beside(file))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}), so it is unknown which number stands for which class. Delete it and "
            "give the numbers with --data.options.phase_names."
        ) from error


def write_classes(folder: str | Path, table: ClassTable) -> None:
    """Write a model's classes and their numbers to its folder.

    Raises:
        CheckpointError: the folder cannot be written to.
    """
    write_beside(folder, CLASSES, table.to_dict())


def class_table_of(dataset: SampleDataset, names: Sequence[str]) -> ClassTable:
    """The classes of a model in their order, with the numbers used by a data set's annotations."""
    table: ClassTable | None = dataset.source.class_table
    return ClassTable(tuple(names)) if table is None else table.onto(names)


def numbers_changed(init_from: str | None, table: ClassTable) -> list[str]:
    """A warning if numbers mean other classes in the evaluation data than in the training of `init_from`."""
    stored = trained_classes(init_from)
    if stored is None or stored.numbers is None or table.numbers is None:
        return []
    before = stored.onto(table.names)
    if before.numbers == table.numbers:
        return []
    return [
        f"WARNING: phases are numbered {table.spelled()} here, but {before.spelled()} in the training of {init_from}"
    ]
