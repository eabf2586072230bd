"""Fine-tune clip classification: run_video_classification.py --recipe ucf101_finetune --init_from PRETRAINED.

With python, torchrun or accelerate launch. --help lists recipes and every key; --dry_run shows what a run would do;
--eval_only --init_from OUTPUT evaluates a trained model.
"""

from __future__ import annotations

import sys

from m33d_hf.scripts._main import main
from m33d_hf.training.processes.program import program

if __name__ == "__main__":
    sys.exit(program(lambda: main("video_classification")))
