"""The paper's order of rows beside ours. Its numbers come from other data, another model and another protocol, so
they are never printed in one table with ours; what may be asked is whether pairs of rows come in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import yaml

from m33d_hf.experiments.report.comparison import BETTER, UNDECIDED, WORSE
from m33d_hf.experiments.report.contrasts import Pair, compare_family
from m33d_hf.experiments.report.results import Results, TableEntry, column_entry
from m33d_hf.training.recipe.recipes import RECIPES
from m33d_hf.visualization.document import Block, Heading, Paragraph, Table

BOTH = "ImageNet+ScanNet"
# Our row -> the row of the paper that comes nearest to it; rows without one are left out.
ROWS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "table_3": {
        "scratch": {"method": "Scratch"},
        "mae": {"method": "MAE", "pretrain": BOTH},
        "multimae": {"method": "MultiMAE", "reconstruction": "RGB + Depth"},
        "mask3d": {"method": "Mask3D", "reconstruction": "Depth"},
        "rgbd_mae": {"method": "Mask3D", "reconstruction": "RGB + Depth"},
        "m33d": {"method": "M33D"},
    },
    "table_5": {
        "mae": {"method": "MAE"},
        "multimae": {"method": "MultiMAE", "reconstruction": "RGB + Depth"},
        "mask3d": {"method": "Mask3D"},
        "m33d": {"method": "M33D"},
    },
    "table_6": {
        "m33d-rgb20-depth20": {"rgb_ratio": 0.2, "depth_ratio": 0.2},
        "m33d-rgb20-depth50": {"rgb_ratio": 0.2, "depth_ratio": 0.5},
        "m33d-rgb20-depth80": {"rgb_ratio": 0.2, "depth_ratio": 0.8},
        "m33d-rgb50-depth20": {"rgb_ratio": 0.5, "depth_ratio": 0.2},
        "m33d-rgb50-depth50": {"rgb_ratio": 0.5, "depth_ratio": 0.5},
        "m33d-rgb80-depth20": {"rgb_ratio": 0.8, "depth_ratio": 0.2},
        "m33d": {"rgb_ratio": 0.8, "depth_ratio": 0.8},
    },
    "table_7": {
        "scratch": {"method": "Train from Scratch"},
        "mask3d": {"method": "Mask3D"},
        "m33d": {"method": "M33D"},
    },
    "table_8": {
        "rgbd_mae": {"method": "w/out contrastive loss"},
        "m33d-no-rgb": {"method": "w/out RGB task"},
        "m33d": {"method": "M33D"},
    },
}


def paper_values(table: TableEntry) -> dict[str, float]:
    """Variant -> the paper's number in percent, for the rows of a table that the paper has too."""
    name = table.get("paper")
    if not name or name not in ROWS:
        return {}
    entry = yaml.safe_load((RECIPES / "paper_results.yaml").read_text(encoding="utf-8"))["tables"][name]
    found = {}
    for row in table["rows"]:
        wanted = ROWS[name].get(row["variant"])
        if wanted is None:
            continue
        matches = [r for r in entry["rows"] if all(r.get(key) == value for key, value in wanted.items())]
        if matches:
            found[row["variant"]] = float(matches[0][entry["metric"]])
    return found


def order_counts(results: Results, table: TableEntry) -> dict[str, int]:
    """Pairs of rows that the paper orders, by what ours say in the table's first column; the pairs are one family.

    They are counts and no verdicts: nobody declared the pairs before the run.

    Returns:
        Counts of "same order", "opposite order", "no difference shown" and "unknown".
    """
    counts = {"same order": 0, "opposite order": 0, UNDECIDED: 0, "unknown": 0}
    values, pairs = paper_values(table), []
    words = {BETTER: "same order", WORSE: "opposite order", UNDECIDED: UNDECIDED}
    for one, other in combinations(values, 2):
        if values[one] != values[other]:
            higher, lower = (one, other) if values[one] > values[other] else (other, one)
            pairs.append(Pair(higher, lower, table["columns"][0]))
    for found in compare_family(results, pairs):
        counts[words.get(found.verdict, "unknown")] += 1
    return counts


def paper_blocks(results: Results) -> list[Block]:
    """Order of rows in the paper against ours, and apart from it the paper's numbers.

    Nothing where no table has a counterpart.
    """
    tables = [table for table in results["tables"] if len(paper_values(table)) > 1]
    if not tables:
        return []
    order, numbers = [], []
    for table in tables:
        title = column_entry(results, table["columns"][0])["title"]
        order.append([table["title"], title, *(str(count) for count in order_counts(results, table).values())])
        labels = {row["variant"]: row["label"] for row in table["rows"]}
        numbers += [[str(table["paper"]).replace("_", " "), labels[variant], f"{value:.1f}"]
                    for variant, value in paper_values(table).items()]  # fmt: skip
    text = (
        "The paper's numbers come from ScanNet and NYUv2 with ViT-B and are printed without a spread: another"
        " protocol. They cannot be compared with ours, only the order of rows can. The counts are no verdicts: no"
        " question declared these pairs. A pair of rows that the paper orders counts as of the same or of the opposite"
        " order where our p value is below .05 after Holm's adjustment over all such pairs of the table:"
    )
    header = ["table", "our column", "same order", "opposite order", UNDECIDED, "unknown"]
    note = "The paper, ScanNet (Table 5: NYUv2), ViT-B: another protocol, for the order of the rows only."
    return [
        Heading("The paper's order of rows"),
        Paragraph(text),
        Table(header, order, left=(1,)),
        Table(["the paper's", "nearest to our row", "the paper's number"], numbers, left=(1,), note=note),
    ]
