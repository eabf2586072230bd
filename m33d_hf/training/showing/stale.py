"""What an earlier run or evaluation has left in an output folder and a new one would show as its own.

Importing this draws nothing: a run needs it before its first step.
"""

from __future__ import annotations

from pathlib import Path

from m33d_hf.evaluation.classification_metrics import CONFUSION_FIGURE

PICTURES = "pictures"
FIRST_BATCH, CURVES = "first_batch.png", "curves.png"
# Names that only this package gives, below the output folder; whatever else lies there is the user's.
_OURS = (
    f"{PICTURES}/{FIRST_BATCH}",
    f"{PICTURES}/{CURVES}",
    f"{PICTURES}/evaluation_step_*.png",
    CONFUSION_FIGURE,
    f"evaluation/{CONFUSION_FIGURE}",
    "evaluation/timeline_[0-9]*_*.png",
    "evaluation/frames/[0-9][0-9][0-9][0-9]*_*.csv",
)


def remove_shown(output_dir: str | Path) -> None:
    """Remove pictures, timelines and tables of frames of whatever was trained or evaluated into a folder before."""
    for pattern in _OURS:
        for path in Path(output_dir).glob(pattern):
            path.unlink(missing_ok=True)
