"""Fine-tune depth estimation on RGB: run_depth_estimation.py --recipe rooms/depth --init_from PRETRAINED.

With python, torchrun or accelerate launch. --help lists recipes and every key; --dry_run shows what a run would do.
"""

from __future__ import annotations

import sys

from m33d_hf.scripts._main import main
from m33d_hf.training.processes.program import program

if __name__ == "__main__":
    sys.exit(program(lambda: main("depth_estimation")))
