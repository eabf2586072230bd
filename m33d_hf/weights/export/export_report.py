"""What an export says about itself: export.json."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPORT = "export.json"


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write export.json."""
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of these packages, for the report."""
    return {package: version(package) for package in packages}
