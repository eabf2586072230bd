"""Where the rows of an output folder began, so that they are known again wherever the folder lies now.

Command lines name the output folder and the cache, and fingerprints and run folders are made from command lines. So a
folder says in plan.json which plan it holds and where that began; it is told by that place ever after.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError, CorruptFileError
from m33d_hf.experiments.jobs import Job, stored_row
from m33d_hf.experiments.report.results import DONE, RESULTS
from m33d_hf.training.run.reporting import CONFIG

BEGUN = "plan.json"
_KEYS = {"plan", "budget", "folder", "cache_dir"}
Make = Callable[[Path, str | None, Mapping[str, str]], list[Job]]
_OTHERWISE = "Choose another --output_dir, or throw them away with --fresh."


@dataclass(frozen=True)
class Begun:
    """What an output folder holds.

    Attributes:
        plan: its name, as in results.json.
        budget: key of the plan's budgets.
        folder: where it lay when it was begun.
        cache_dir: where rooms were rendered then; None = the user's cache.
    """

    plan: str
    budget: str
    folder: str
    cache_dir: str | None

    def keep(self, folder: Path) -> None:
        """Say so in `folder`."""
        write_sealed_json(folder / BEGUN, dataclasses.asdict(self))


def begun(here: Begun, fresh: bool = False) -> Begun:
    """Where the rows of a folder began; `here` where there are none, or with `fresh`.

    Folders of earlier versions say nothing: the logs of their rows tell where these ran.

    Args:
        here: what shall run, and where.
        fresh: what is finished is thrown away.

    Raises:
        ConfigError: the folder holds rows or results of another plan or budget.
    """
    if fresh:
        return here
    folder = Path(here.folder)
    kept, results, found = _kept(folder), _read(folder / RESULTS), list(_finished(folder))
    if kept is not None and found:
        _refuse_others(here, kept.plan, kept.budget)
        return kept
    if "name" in results:
        _refuse_others(here, str(results["name"]), str(results.get("budget")))
    if not found:
        return here
    folders = {str(Path(row["log"]).parents[1]) for row in found if isinstance(row.get("log"), str)}
    settings = results.get("settings")
    cache = settings["cache_dir"] if isinstance(settings, dict) and "cache_dir" in settings else here.cache_dir
    return dataclasses.replace(here, folder=folders.pop() if len(folders) == 1 else here.folder, cache_dir=cache)


def _refuse_others(here: Begun, plan: str, budget: str) -> None:
    """Nothing is written over what another plan or budget took hours for."""
    if (plan, budget) != (here.plan, here.budget):
        raise ConfigError(
            f"{here.folder} holds results of plan {plan!r}, budget {budget!r}; those of plan {here.plan!r}, budget "
            f"{here.budget!r} would replace them. {_OTHERWISE}"
        )


def jobs_in_place(make: Make, here: Begun, place: Begun, fresh: bool = False) -> list[Job]:
    """Jobs with fingerprints and run folders as where the output folder was begun.

    Args:
        make: the jobs of an output folder and a cache, given the names of run folders that are known by job id.
        here: what shall run, and where.
        place: as `begun` told.
        fresh: what is finished is thrown away.

    Raises:
        ConfigError: rows are finished in a folder that does not say of which plan, and none is of this one.
    """
    folder = Path(here.folder)
    jobs = make(folder, here.cache_dir, {})
    if place != here:
        former = {job.id: job for job in make(Path(place.folder), place.cache_dir, {})}
        names = {name: Path(job.parameters["output_dir"]).name for name, job in former.items() if _runs(job)}
        moved = make(folder, here.cache_dir, names)
        jobs = [dataclasses.replace(job, known_as=former[job.id].fingerprint()) for job in moved]
    nameless = not fresh and not (folder / BEGUN).is_file() and "name" not in _read(folder / RESULTS)
    count = len(list(_finished(folder))) if nameless else 0
    if count and not any(stored_row(folder / "rows", job) for job in jobs):
        raise ConfigError(
            f"{folder} holds {plural(count, 'finished row')}, and none has the settings of plan {here.plan!r}, budget "
            f"{here.budget!r}, with this cache. {_OTHERWISE}"
        )
    return jobs


def discard_former_starts(jobs: Sequence[Job], folder: Path, place: Begun) -> None:
    """Throw away interrupted runs of a moved folder that started from its weights by their former path: a run is
    resumed from what it began with only, and these would be refused for ever."""
    former = str(Path(place.folder) / "runs") + os.sep
    for job in jobs if Path(place.folder) != folder else ():
        if _runs(job) and stored_row(folder / "rows", job) is None:
            run = Path(job.parameters["output_dir"])
            starts = [_read(told).get("args", {}).get("init_from") for told in run.rglob(CONFIG)]
            if any(start is not None and str(start).startswith(former) for start in starts):
                print(f"{job.id} begins again: {run} was begun from weights that lay elsewhere", flush=True)
                shutil.rmtree(run)


def _runs(job: Job) -> bool:
    return "output_dir" in job.parameters


def _kept(folder: Path) -> Begun | None:
    path = folder / BEGUN
    if not path.is_file():
        return None
    try:
        content = read_sealed_json(path)
    except CorruptFileError as error:
        raise ConfigError(f"{error}, so that nobody knows whose rows these are. {_OTHERWISE}") from error
    if set(content) != _KEYS:
        raise ConfigError(f"{path} does not say {', '.join(sorted(_KEYS))}. {_OTHERWISE}")
    return Begun(**content)


def _finished(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of whatever plan; of damaged ones the runner tells."""
    rows = (_read(path) for path in sorted((folder / "rows").glob("*.json")))
    yield from (row for row in rows if row.get("status") == DONE)


def _read(path: Path) -> dict[str, Any]:
    """An object that need not be there."""
    try:
        return read_sealed_json(path) if path.is_file() else {}
    except CorruptFileError:
        return {}
