"""Draw the reconstructions of a pre-trained model and its visible tokens: visualize.py --model OUTPUT.

Takes the output folder of run_pretrain.py and the data that the run was evaluated on, as its train_config.json says.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from m33d_hf.errors import M33DError


def main(argv: list[str] | None = None) -> int:
    """Run from the command line: 0, or 2 after an error of ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="output folder of run_pretrain.py")
    parser.add_argument("--output", type=Path, help="output folder; default: pictures/ in the model's folder")
    parser.add_argument("--samples", type=int, default=4, help="number of images or clips (default 4)")
    parser.add_argument("--data_root", help="data folder to read instead of that of the run")
    parser.add_argument("--split", help="split to read; default: the evaluation split of the run")
    options = parser.parse_args(argv)
    if options.samples < 1:
        parser.error(f"--samples is {options.samples}; it must be at least 1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for reading one file
    try:
        from m33d_hf.inference.reconstruction_pictures import run_arguments, save_pictures

        args = run_arguments(options.model, options.data_root, options.split)
        paths = save_pictures(options.model, options.output or options.model / "pictures", args, options.samples)
    except M33DError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    print("\n".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
