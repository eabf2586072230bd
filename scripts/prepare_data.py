"""Turn any source into Parquet files of resized frames (--data.source hub reads them), or into tar shards (--format
shards, --data.source shards).

    python scripts/prepare_data.py --data.source scannet --data.root scans --data.split train \
        --size 256 --output prepared/train --workers 8

Start it with torchrun, accelerate launch or srun to share the work, also over machines with one file system; start it
again to continue. Splits go into folders of their own below one (prepared/train, prepared/validation).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import program


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; return the exit code: 0, 2 after an error of ours, 130 when interrupted."""
    watch_launcher()
    words = list(sys.argv[1:] if argv is None else argv)
    from m33d_hf.errors import M33DError

    if not words or "-h" in words or "--help" in words:
        return _help(words)
    from m33d_hf.inference.preparation.arguments import build_prepared_source, parse_preparation
    from m33d_hf.inference.preparation.options import how_to_read
    from m33d_hf.inference.preparation.preparing import prepare_data
    from m33d_hf.inference.sharding import launched_place

    rank = ""
    try:
        place = launched_place()
        rank = f"[rank {place.rank}] " if place.world_size > 1 else ""
        options = parse_preparation(words)
        source = build_prepared_source(options)
        summary = prepare_data(options, source, place, say=lambda line: print(line, flush=True))
    except (M33DError, OSError) as error:  # a full disk, a folder that may not be written
        print(f"{rank}error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{rank}interrupted; run the same command to continue", file=sys.stderr)
        return 130
    print(f"{rank}{summary.describe()}")
    if place.rank == 0:
        print(f"read it with: {how_to_read(options)}")
    return 0


def _help(words: Sequence[str]) -> int:
    from m33d_hf.errors import M33DError
    from m33d_hf.inference.preparation.options import PreparationOptions
    from m33d_hf.training.recipe.help import described_fields, source_help

    try:
        print("\n".join([str(__doc__), *described_fields(PreparationOptions()), *source_help(words)]))
    except M33DError as error:  # no such source
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(program(main))
