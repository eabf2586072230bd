"""Runs a study of few labels: check, run what is not finished, collect, report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.data.remembering import remembering
from m33d_hf.experiments.compute import Compute, environment
from m33d_hf.experiments.driver import LEFT_BY_RUNS, report, run_jobs
from m33d_hf.experiments.few_labels.first_checks import check_runs
from m33d_hf.experiments.few_labels.jobs import jobs_of_study
from m33d_hf.experiments.few_labels.origins import origins_of
from m33d_hf.experiments.few_labels.study import Study
from m33d_hf.experiments.few_labels.tables import BUDGET, results_of, unlike_words
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.places import Begun, begun, jobs_in_place
from m33d_hf.experiments.report.reproduction import FEW_LABELS
from m33d_hf.experiments.report.results import RESULTS


def run_study(
    study: Study,
    folder: Path,
    workers: int | None = None,
    compute: Compute | None = None,
    fresh: bool = False,
) -> int:
    """Run what is not finished yet, write results.json, tables, answers and the page; return the exit code.

    Args:
        study: what is run.
        folder: outputs.
        workers: processes; None = one per core, at most 8.
        compute: where; None = one-thread processes on the CPU.
        fresh: repeat what is finished.

    Raises:
        ConfigError: see `Study.check`, `Study.check_checkpoints`, `begun` and `check_runs`.
    """
    study.check()
    study.check_checkpoints()
    folder, compute = folder.absolute(), compute or Compute()
    here = Begun(FEW_LABELS, BUDGET, str(folder), None)
    place = begun(here, fresh)
    with remembering():  # all of them look at the same files
        origins = origins_of(study, folder)

        def make(there: Path, _: str | None, names: Mapping[str, str]) -> list[Job]:
            return jobs_of_study(study, there, compute, origins, names)

        jobs = jobs_in_place(make, here, place, fresh)
        looked_at = check_runs(jobs, folder, fresh)
    _tell_unlike(study, looked_at)  # not after hours alone
    rows, count = run_jobs(jobs, folder, workers, compute, discard=LEFT_BY_RUNS if fresh else (), place=place)
    results = {**results_of(study, rows), "workers": count, "environment": environment(compute)}
    write_sealed_json(folder / RESULTS, results)
    _tell_unlike(study, rows)
    return report(folder)


def _tell_unlike(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> None:
    for sentence in unlike_words(study, rows):
        print("\n" + sentence.replace("**", ""), flush=True)
