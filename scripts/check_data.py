"""Check a data set before any compute is spent: what a run would read, and what would stop or spoil it.

  python scripts/check_data.py FRAMES                        a folder of your own frames, or several
  python scripts/check_data.py --recipe NAME --data.root R   the data of a recipe; all --data.* of the run scripts

Writes report.json, skipped_files.csv (which a run takes as --data.skip_list), duplicates.csv and contact_sheet.png.
Start it again to continue after an interruption. Exit code: 0 fine, 1 problems, 2 a mistake in the command,
130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from m33d_hf.training.processes.program import importing, program


def _parser() -> argparse.ArgumentParser:
    from m33d_hf.inspection.request import add_options

    parser = argparse.ArgumentParser(
        description=__doc__,
        usage="check_data.py [FRAMES ..] [options] [--recipe NAME] [--data.source X] [--data.root ROOT] [--data.* ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, check, and return the exit code."""
    from m33d_hf.errors import M33DError

    words = list(sys.argv[1:] if argv is None else argv)
    # What readers log, the report says as notes and findings.
    logger = logging.getLogger("m33d_hf.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        if "-h" in words or "--help" in words:
            return _help(words)
        with importing():
            from m33d_hf.data.remembering import remembering
            from m33d_hf.inspection.doctor import check_data
            from m33d_hf.inspection.request import read_request

            request = read_request(words, _parser())
        with remembering():  # training and evaluation share a folder
            return check_data(request, say=lambda text: print(text, flush=True))
    except (M33DError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue", file=sys.stderr)
        return 130
    finally:
        logger.setLevel(level)


def _help(words: Sequence[str]) -> int:
    from m33d_hf.training.recipe.help import source_help

    print("\n".join([_parser().format_help(), *source_help(words)]))
    return 0


if __name__ == "__main__":
    sys.exit(program(main))
