"""Pre-train on RGB-D: python, torchrun or accelerate launch scripts/run_pretrain.py --recipe rooms/pretrain_stage1.

--help lists recipes, methods and every key; --dry_run shows what a run would do.
"""

from __future__ import annotations

import sys

from m33d_hf.scripts._main import main
from m33d_hf.training.processes.program import program

if __name__ == "__main__":
    sys.exit(program(lambda: main("pretraining")))
