"""Detect phases in long videos: run_action_detection.py --recipe rooms/phases_temporal --init_from STAGE_1_OUTPUT.

Trains the temporal model (--model.temporal_model) on the clip features of whole videos; features missing from
--features.dir are extracted first. With python, torchrun or accelerate launch. --help lists recipes and every key;
--dry_run shows what a run would do.
"""

from __future__ import annotations

import sys

from m33d_hf.scripts._main import main
from m33d_hf.training.processes.program import program

if __name__ == "__main__":
    sys.exit(program(lambda: main("action_detection")))
