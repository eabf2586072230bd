"""Pictures of seeds: what is drawn is what was measured, and odd inputs are drawn too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from m33d_hf.visualization.canvas import save_figure
from m33d_hf.visualization.seeds import Seeds, grid_figure, lines_figure, rows_figure, scatter_figure, style


def test_rows_show_every_seed_and_the_mean(tmp_path: Path) -> None:
    rows = [Seeds("question", (), heading=True), Seeds("a", (1.0, 2.0, 6.0)), Seeds("none", ())]
    rows.append(Seeds("b", (1.0, 4.0), (0.5, 2.5, 4.5)))
    figure = rows_figure({"panel": rows}, "points", zero=True)
    axis = figure.axes[0]
    drawn = [tuple(float(x) for x in line.get_xdata()) for line in axis.get_lines()]
    assert (1.0, 6.0) in drawn and (1.0, 2.0, 6.0) in drawn and (3.0,) in drawn
    assert (0.5, 4.5) in drawn and (2.5,) in drawn, "an interval instead of the range, and its estimate"
    assert [text.get_text() for text in axis.get_yticklabels()] == ["question", "a", "none", "b"]
    assert axis.get_yticklabels()[0].get_fontweight() == "bold"
    assert [text.get_text() for text in axis.texts] == ["no result"]
    assert save_figure(figure, tmp_path / "rows.png").stat().st_size > 5000


def test_a_level_far_from_the_data_is_written_not_drawn() -> None:
    rows = [Seeds("a", (50.0, 51.0)), Seeds("b", (52.0, 53.0))]
    far, near = (rows_figure({"t": rows}, "percent", {"t": ("floor", value)}).axes[0] for value in (9.0, 49.0))
    assert far.get_xlabel() == "percent (floor 9.0)" and far.get_xlim()[0] > 45
    assert near.get_xlabel() == "percent" and [text.get_text() for text in near.texts] == ["floor"]


def test_lines_go_through_the_means() -> None:
    near, far = Seeds("a", (1.0, 3.0)), Seeds("a", (4.0, 6.0), (2.5, 5.0, 7.5))
    series = {
        "a": [(50.0, near), (200.0, far), (800.0, Seeds("a", ()))],
        "b": [(50.0, Seeds("b", (2.0,))), (200.0, Seeds("b", (3.0,)))],
    }
    figure = lines_figure({"panel": series}, "labels", {"panel": ("floor", 0.5)})
    axis = figure.axes[0]
    means = [list(line.get_ydata()) for line in axis.get_lines() if len(line.get_ydata()) == 2]
    assert [2.0, 5.0] in means and [2.0, 3.0] in means
    assert [1.0, 3.0] in means and [2.5, 7.5] in means, "the range of seeds, or the interval where there is one"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["50", "200", "800"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_a_grid_prints_mean_and_deviation() -> None:
    figure = grid_figure({(0.2, 0.2): (1.0, 3.0), (0.8, 0.8): (5.0,), (0.2, 0.8): ()}, "t", "x", "y", "left out")
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts == {f"2.0\n± {np.std([1.0, 3.0], ddof=1):.1f}", "5.0", "no result", "left out"}
    assert grid_figure({(0.2, 0.2): ()}, "t", "x", "y").axes


def test_scatter_and_legend_fit_long_names() -> None:
    names = [f"a pre-training with a long name, number {i}" for i in range(12)]
    points = {name: (float(i), Seeds(name, (1.0, 2.0))) for i, name in enumerate(names)}
    figure = scatter_figure({"t": points}, "TFLOPs")
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_series_can_be_told_apart() -> None:
    assert len({style(index) for index in range(64)}) == 64
