"""Run as a script by an interpreter that cannot import m33d_hf: everything a user does with a published repository.

Usage: python -I load_published.py REPO FOLDER; FOLDER holds picture.png and room.pt. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.modules["m33d_hf"] = None  # type: ignore[assignment]  # importing it raises, whatever is installed

import torch  # noqa: E402
from huggingface_hub import HfApi, snapshot_download  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoImageProcessor, AutoModelForDepthEstimation, pipeline  # noqa: E402


def main(repo: str, folder: Path) -> None:
    """Load in every way."""
    os.chdir(folder)
    wanted = torch.load("room.pt", weights_only=True)
    model = AutoModelForDepthEstimation.from_pretrained(repo, trust_remote_code=True).eval()
    processor = AutoImageProcessor.from_pretrained(repo, trust_remote_code=True)
    with torch.no_grad():
        depth = model(**processor(Image.open("picture.png"), return_tensors="pt")).predicted_depth
    found: dict[str, Any] = {"difference": float((depth - wanted).abs().max())}
    estimate = pipeline("depth-estimation", model=repo, trust_remote_code=True)
    found["pipeline"] = list(estimate("picture.png")["predicted_depth"].shape)
    snapshot = Path(snapshot_download(repo))
    found["snapshot"] = sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        tags = HfApi().list_repo_refs(repo).tags
        found["tags"] = [tag.name for tag in tags]
        old = AutoModelForDepthEstimation.from_pretrained(repo, revision=tags[0].name, trust_remote_code=True)
        found["by tag"] = type(old).__name__
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", (snapshot / "README.md").read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), space)
    found["readme"] = [list(space["metres"].shape), Image.open("depth.png").size]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
