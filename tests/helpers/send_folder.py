"""Run as a script: sends a folder, prints what came of it as JSON.

Usage: send_folder.py FOLDER REPO OPTIONS, where OPTIONS is a JSON object for `send_folder`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from m33d_hf.errors import HubError
from m33d_hf.modeling.hub_upload_m33d import Destination, send_folder


def main(folder: str, repo: str, options: str) -> None:
    """Send, and print {"commit", "tag"} or {"error"}."""
    given = json.loads(options)
    to = Destination(repo, **given.pop("destination", {}))
    try:
        sent = send_folder(Path(folder), to, "from a test", **{"pause": 0.01, **given})
    except HubError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"commit": sent.commit, "tag": sent.tag, "repo": sent.repo}))


if __name__ == "__main__":
    main(*sys.argv[1:])
