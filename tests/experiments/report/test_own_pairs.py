"""The verdicts that rest on the noise of other rows: results/README.md lists all that the committed results have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.report.answers import answers
from m33d_hf.experiments.report.comparison import BETTER, WORSE
from m33d_hf.experiments.report.results import column_entry, load_results


def _resting_on_others(folder: Path) -> list[str]:
    """Rows of the list: a difference whose own pairs of seeds alone do not tell it from nothing."""
    results, rows = as_tables(load_results(folder)), []
    for answer in answers(results):
        for comparison in answer.comparisons:
            for found in comparison.differences:
                own = np.array(list(found.paired.values()))
                if found.verdict not in (BETTER, WORSE) or stats.ttest_1samp(own, 0).pvalue < 0.05:
                    continue
                half = float(stats.t.ppf(0.975, len(own) - 1) * stats.sem(own))
                title = column_entry(results, found.pair.column)["title"]
                words = [f"`{folder.name}`", comparison.text, title, found.text(), f"{own.mean():.1f} ± {half:.1f}"]
                rows.append(f"| {' | '.join(words)} |")
    return rows


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_the_list_is_complete(repository: Path) -> None:
    folders = [path.parent for path in sorted((repository / "results").glob("*/results.json"))]
    assert len(folders) > 20
    expected = [row for folder in folders for row in _resting_on_others(folder)]
    text = (repository / "results" / "README.md").read_text(encoding="utf-8")
    listed = text.partition("| its own pairs |\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert listed == expected and expected
