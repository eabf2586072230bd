"""Draw what models predict: visualize.py --model OUTPUT [OUTPUT ...].

Of a pre-training its reconstructions and visible tokens; of segmentation or depth runs, one or several beside each
other, input, truth and predictions, with depth errors in metres or the IoU of every class. Data are those that the
(first) run was evaluated on, as its train_config.json says.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.program import program


def main(argv: list[str] | None = None) -> int:
    """Run from the command line: 0, or 2 after an error of ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, nargs="+", help="output folders of runs of one task")
    parser.add_argument("--output", type=Path, help="output folder; default: pictures/ in the first model's folder")
    parser.add_argument("--samples", type=int, default=4, help="number of images or clips (default 4)")
    parser.add_argument("--data_root", help="data folder to read instead of that of the run")
    parser.add_argument("--split", help="split to read; default: the evaluation split of the run")
    parser.add_argument(
        "--label_curves",
        nargs="?",
        const="",
        metavar="METRIC",
        help="draw the runs' last evaluations over the labels they used; default: the task's own metric",
    )
    options = parser.parse_args(argv)
    if options.samples < 1:
        parser.error(f"--samples is {options.samples}; it must be at least 1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for reading one file
    try:
        from m33d_hf.inference.dense_pictures import DENSE_TASKS, save_dense_pictures
        from m33d_hf.inference.label_curves import save_label_curves
        from m33d_hf.inference.reconstruction_pictures import run_arguments, save_pictures, task_of

        folders, output = options.model, options.output or options.model[0] / "pictures"
        given = (options.data_root, options.split)
        if options.label_curves is not None:
            paths = save_label_curves(folders, output, options.label_curves or None)
        elif len(folders) == 1 and task_of(folders[0]) not in DENSE_TASKS:
            paths = save_pictures(folders[0], output, run_arguments(folders[0], *given), options.samples)
        else:
            paths = save_dense_pictures(folders, output, options.samples, *given)
    except (M33DError, OSError) as error:  # a folder that may not be written, a full disk
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    print("\n".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(program(main))
