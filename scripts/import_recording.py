"""Turn a camera's recording into a folder of frames: color/, depth/ (16-bit PNG), calibration.json, depth_spec.json.

Reads RealSense (.bag, .db3), Record3D (.r3d), Azure Kinect (.mkv), ROS 1 and ROS 2 bags, and phone exports (folders
with rgb, depth and confidence). The closing lines say with which flags the source folder reads it. Start it again to
continue.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.training.processes.program import program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("recording", type=Path, help="a .r3d, .mkv, .bag, .db3 or .mcap file, or a folder (ROS 2, phone export)")
    add("--output", required=True, type=Path, help="folder of this sequence; several go beside each other")
    add("--every", type=int, default=1, help="keep every k-th frame")
    add("--limit", type=int, help="stop after so many frames")
    add("--min_confidence", type=int, default=1, help="less confidence (0 low, 1 medium, 2 high) makes a hole")
    add("--color_topic", help="of a ROS bag with several")
    add("--depth_topic", help="of a ROS bag with several")
    add("--max_difference", type=float, default=0.02, help="seconds between colour and depth of one frame")
    add("--max_bad_fraction", type=float, default=0.01, help="share of frames that may be damaged or missing")
    add("--report_seconds", type=float, default=10.0, help="seconds between progress lines")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; return the exit code: 0, 2 after an error of ours, 130 when interrupted."""
    arguments = vars(_parser().parse_args(argv))
    source, output = arguments.pop("recording"), arguments.pop("output")
    from m33d_hf.data.recordings.importing import import_recording
    from m33d_hf.data.recordings.recording import ImportOptions
    from m33d_hf.errors import M33DError

    try:
        summary = import_recording(source, output, ImportOptions(**arguments), lambda line: print(line, flush=True))
    except (M33DError, OSError) as error:  # a full disk, a folder that may not be written
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue", file=sys.stderr)
        return 130
    print(summary.describe())
    return 0


if __name__ == "__main__":
    sys.exit(program(main))
