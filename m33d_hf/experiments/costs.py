"""What a plan is expected to cost before it is run, and what it would be judged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from m33d_hf.data.clock import clock
from m33d_hf.experiments.collecting import questions_of
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.plan import Plan
from m33d_hf.experiments.report.conditions import ALL

PRETRAINING = "pre-training"


def estimate(jobs: Sequence[Job], workers: int, budget: str) -> str:
    """One sentence: the expected time if nothing is finished yet."""
    seconds = sum(job.cost for job in jobs) / workers
    runs = sum(job.id.startswith("pretrain-") for job in jobs)
    return (
        f"budget {budget}: {runs} pre-trainings and {len(jobs) - runs} other jobs, about {clock(seconds)} in {workers} "
        "processes (finished rows are kept; run the same command to continue)"
    )


def dry_run_lines(plan: Plan, jobs: Sequence[Job], workers: int) -> list[str]:
    """Jobs and seconds by kind, the expected time, and the declared contrasts."""
    return [
        f"plan {plan.name}, budget {plan.budget_name}, seeds {', '.join(str(seed) for seed in plan.seeds)}",
        *_costs(jobs),
        estimate(jobs, workers, plan.budget_name),
        *_contrasts(plan),
    ]


def _kind(job: Job) -> str:
    """Pre-training, or what the job's function is called."""
    function = job.function.split(":")[1]
    return PRETRAINING if function == "pretrain" else str(job.parameters.get("task", function)).replace("_", " ")


def _costs(jobs: Sequence[Job]) -> Iterator[str]:
    for kind in dict.fromkeys(_kind(job) for job in jobs):
        costs = [job.cost for job in jobs if _kind(job) == kind]
        yield f"  {kind:<24}{len(costs):>4} jobs {clock(sum(costs)):>10} of one process"
    yield f"  {'in all':<24}{len(jobs):>4} jobs {clock(sum(job.cost for job in jobs)):>10} of one process"


def _contrasts(plan: Plan) -> Iterator[str]:
    """A line per question with the size of its family, and one per comparison."""
    for condition in plan.conditions:
        waits = "nothing is concluded" if condition["gates"] == ALL else "nothing is concluded of it"
        yield f"condition: {waits} unless {condition['loss']} of {condition['variant']} is below {condition['below']:g}"
    questions = questions_of(plan)
    if not questions:
        yield "no contrasts are declared: nothing will get a verdict"
    for question in sorted(questions, key=lambda found: not found.get("primary")):
        count = sum(len(entry["columns"]) for entry in question["compare"])
        mark = "primary" if question.get("primary") else "secondary"
        yield f"{mark}: {question['text']} (Holm over {count})"
        for entry in question["compare"]:
            yield f"  {entry['better']} against {entry['than']} in {', '.join(entry['columns'])}"
