"""The results of the step benchmark as tables in benchmarks/README.md, from its JSON files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.training.run.reporting import short_commit

Row = dict[str, Any]

BEGIN = "<!-- step results: written by pretrain_step.py --report -->"
END = "<!-- end of step results -->"

# (case, precision) -> least peer / ours, on CPU; the peer is the one with torch's default AdamW (T1 and T2).
SPEED_TARGETS = {("videomae", "no"): 1.08, ("videomae", "bf16"): 1.25, ("mae", "no"): 1.08, ("mae", "bf16"): 1.12}
SHARE_TARGETS = {"no": 0.85, "bf16": 0.5}  # least share of the matmul ceiling (T3)
COST_TARGETS = {("m33d_video", "bf16"): 2.6}  # largest ours / peer (T4)
# Compiled steps on a GPU: least compiled and eager peer / ours (T7), and least share of the ceiling (T8).
GPU_SPEED_TARGETS = {("videomae", "bf16"): (1.1, 1.3)}
GPU_SHARE_TARGETS = {("m33d_video", "bf16"): 0.4}

_RATIOS = ("default peer / ours", "fused peer / ours", "FLOPs")
_HEAD = ("case", "batch", "ours, ms", *_RATIOS, "ceiling", "memory, MiB", "targets", "run")


def collect(folder: Path) -> list[Row]:
    """All timed cases of ViT-B in the folder's `pretrain_step*.json` and `gpu*.json`, with their run's facts.

    Of each kind the newest; a run of ours alone takes no place of one beside its peers.

    Raises:
        ValueError: no such file.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for path in sorted([*folder.glob("pretrain_step*.json"), *folder.glob("gpu*.json")]):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["size"] != "base":
            continue
        facts = {name: content[name] for name in ("machine", "versions", "commit", "date")}
        for case in content["cases"]:
            if "steps" not in case:
                continue
            row = {**case, **facts, "file": path.name}
            alone = len(case["steps"]) == 1
            kind = (machine_of(row), case["case"], case["precision"], case["mode"], case["batch"], alone)
            if kind not in found or found[kind]["date"] < row["date"]:
                found[kind] = row
    if not found:
        raise ValueError(f"{folder} has no pretrain_step*.json with ViT-B timings; run pretrain_step.py first.")
    for (where, case, precision, mode, batch, alone), row in found.items():
        eager = found.get((where, case, precision, "eager", batch, alone))
        if mode == "compiled" and eager is not None:
            row["eager_steps"] = eager["steps"]
    return [found[kind] for kind in sorted(found, key=str)]


def machine_of(row: Row) -> str:
    """Processor or GPU, threads and torch of a row's run."""
    machine = row["machine"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['vector_instructions']}"
    threads = "" if "gpu" in machine else f", {machine['threads']} thread" + ("s" if machine["threads"] != 1 else "")
    return f"{where}{threads}, torch {row['versions']['torch']}, transformers {row['versions']['transformers']}"


def tables(rows: Iterable[Row]) -> str:
    """One Markdown table per machine."""
    by_machine: dict[str, list[Row]] = {}
    for row in rows:
        by_machine.setdefault(machine_of(row), []).append(row)
    blocks = []
    for name, group in by_machine.items():
        lines = [f"{name}:", "", _line(_HEAD), _line(["---"] * len(_HEAD))]
        blocks.append("\n".join([*lines, *(_line(_cells(row)) for row in group)]))
    return "\n\n".join(blocks)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    ours = row["steps"]["ours"]
    precision = "float32" if row["precision"] == "no" else row["precision"]
    return [
        f"`{row['case']}` {precision}" + (" compiled" if row["mode"] == "compiled" else ""),
        str(row["batch"]),
        f"{ours['median_ms']:,.0f} ({100 * ours['spread']:.0f} %)",
        _compared(row, "peer_default"),
        _compared(row, "peer_fused"),
        f"{row['gflop_per_sample_customary'] / row['gflop_per_sample']:.3f}" if "ratio" in row else "-",
        f"{100 * row['share_of_ceiling']:.1f} %",
        _memory(row),
        "; ".join(_judged(row)) or "none",
        f"{row['date'][:10]}, {short_commit(row['commit'], 7)}, {ours['rounds']} rounds",
    ]


def _memory(row: Row) -> str:
    """MiB that three steps add to a process, ours / peer."""
    peaks = row.get("peak_memory_bytes", {})
    return " / ".join(f"{peaks[side] / 2**20:,.0f}" for side in ("ours", "peer") if side in peaks) or "-"


def _compared(row: Row, peer: str) -> str:
    """Ratio of the medians, and between which values it lay in single rounds."""
    if "ratio" not in row:
        cost = row["cost_against_peer"].get(peer)
        return "-" if cost is None else f"cost {cost:.2f}"
    if peer not in row["ratio"]:
        return "-"
    rounds = row.get("ratio_by_round", {}).get(peer)
    return f"{row['ratio'][peer]:.3f}" + (f" ({min(rounds):.3f} to {max(rounds):.3f})" if rounds else "")


def _judged(row: Row) -> list[str]:
    """Targets with their verdicts: of eager steps on a CPU, of compiled steps on a GPU."""
    if "gpu" in row["machine"]:
        return _judged_on_gpu(row) if row["mode"] == "compiled" else []
    if row["mode"] != "eager":
        return []
    kind, words = (row["case"], row["precision"]), []
    if kind in SPEED_TARGETS:
        words.append(_speed(row, SPEED_TARGETS[kind]))
    if kind in COST_TARGETS and row["cost_against_peer"]:
        cost = next(iter(row["cost_against_peer"].values()))
        words.append(f"cost {COST_TARGETS[kind]}: {'met' if cost <= COST_TARGETS[kind] else 'missed'}")
    if "ratio" in row:
        least = SHARE_TARGETS[row["precision"]]
        words.append(f"{100 * least:.0f} %: {_verdict(row['share_of_ceiling'], least)}")
    return words


def _speed(row: Row, least: float) -> str:
    if "peer_default" not in row["ratio"]:
        return f"{least}x: not judged, the default AdamW was not run"
    rounds = row.get("ratio_by_round", {}).get("peer_default", [])
    split = bool(rounds) and min(rounds) < least <= max(rounds)
    verdict = _verdict(row["ratio"]["peer_default"], least)
    return f"{least}x: {verdict}" + (" (single rounds on either side)" if split else "")


def _judged_on_gpu(row: Row) -> list[str]:
    kind, words = (row["case"], row["precision"]), []
    if kind in GPU_SPEED_TARGETS and row["ratio"]:
        of_compiled, of_eager = GPU_SPEED_TARGETS[kind]
        words.append(f"{of_compiled}x: {_verdict(min(row['ratio'].values()), of_compiled)}")
        peers = [step["median_ms"] for name, step in row.get("eager_steps", {}).items() if name != "ours"]
        if peers:
            ratio = min(peers) / row["steps"]["ours"]["median_ms"]
            words.append(f"{of_eager}x of the eager peer: {_verdict(ratio, of_eager)} ({ratio:.2f})")
    if kind in GPU_SHARE_TARGETS:
        least = GPU_SHARE_TARGETS[kind]
        words.append(f"{100 * least:.0f} %: {_verdict(row['share_of_ceiling'], least)}")
    return words


def _verdict(value: float, least: float) -> str:
    return "met" if value >= least else "missed"


def write_report(folder: Path) -> str:
    """Put the tables between the marks in the folder's README.md and return them.

    Raises:
        ValueError: no results, or a README without the marks.
    """
    text = tables(collect(folder))
    readme = folder / "README.md"
    content = readme.read_text(encoding="utf-8")
    if content.count(BEGIN) != 1 or content.count(END) != 1:
        raise ValueError(f"{readme} lacks the lines {BEGIN!r} and {END!r}; put them where the tables belong.")
    before, rest = content.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return text
