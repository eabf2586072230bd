"""Run as a script by an interpreter that cannot import m33d_hf: the code of cards, and handlers, of published folders.

Usage: python -I use_published.py FOLDER JSON; FOLDER holds picture.png and clip.mp4, JSON is a list of [name, place]:
what the card calls the repository, and the local folder or Hub id that stands for it. Prints one JSON object: name ->
what was found.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.modules["m33d_hf"] = None  # type: ignore[assignment]  # importing it raises, whatever is installed

from huggingface_hub import snapshot_download  # noqa: E402
from torch import Tensor  # noqa: E402


def run_card(name: str, place: str, folder: Path) -> dict[str, Any]:
    """What its code prints, and the values that it leaves behind."""
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", (folder / "README.md").read_text(encoding="utf-8"))
    assert f'"{name}"' in code
    space: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code.replace(f'"{name}"', repr(place)), "README.md", "exec"), space)
    kept = {key: value.tolist() for key, value in space.items() if isinstance(value, Tensor)}
    kept |= {key: space[key] for key in ("tokens",) if isinstance(space.get(key), list)}
    return {
        "printed": printed.getvalue(),
        "class": type(getattr(space["model"], "model", space["model"])).__name__,
        **kept,
    }


def run_handler(folder: Path) -> dict[str, Any] | None:
    """Its answers to the files, as bytes, and to what is no file."""
    if not (folder / "handler.py").is_file():
        return None
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(str(folder))
    reads_clips = handler.task in ("video-classification", "clip features")
    content = Path("clip.mp4" if reads_clips else "picture.png").read_bytes()
    refused = []
    for bad in ({}, {"inputs": "%%%"}, {"inputs": b"no file of any kind"}):
        try:
            handler(bad)
        except ValueError as error:
            refused.append(str(error))
    return {"task": handler.task, "answer": handler({"inputs": content}), "refused": refused}


def main(folder: str, given: str) -> None:
    """Use each in turn."""
    os.chdir(folder)
    found: dict[str, Any] = {}
    for name, place in json.loads(given):
        local = Path(place) if Path(place).is_dir() else Path(snapshot_download(place))
        found[name] = {"card": run_card(name, place, local), "handler": run_handler(local)}
        found[name] |= {"files": sorted(path.name for path in local.iterdir())}
    found["foreign code"] = any(module.startswith("transformers_modules.") for module in sys.modules)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
