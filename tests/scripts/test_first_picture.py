"""The commands of docs/first_picture.md, one after the other, with fewer steps of a smaller model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from m33d_hf.scripts import predict
from m33d_hf.scripts._main import main

PAGE = Path(__file__).parents[2] / "docs" / "first_picture.md"
SMALL = ["--cpu", "true", "--data.options", "{num_frames: 12}", "--data.num_workers", "0", "--train.batch_size", "4"]
SMALL += ["--evaluation.batch_size", "4", "--model.hidden_size", "32", "--model.intermediate_size", "64"]


def commands() -> dict[str, list[str]]:
    """Script -> its words, of the lines that start one."""
    text = "\n".join(re.findall(r"(?ms)^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"))).replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("python scripts/")]
    return {Path(words[1]).stem: words[2:] for words in lines}


def shortened(words: list[str]) -> list[str]:
    """The same command with two steps, and eight samples where it says how many."""
    fewer = {"--train.max_steps": "2", "--data.max_train_samples": "8"}
    assert "--train.max_steps" in words
    return [*(fewer.get(before, word) for before, word in zip(["", *words], words)), *SMALL]


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = commands()
    assert list(given) == ["run_pretrain", "run_depth_estimation", "predict"]
    assert main("pretraining", shortened(given["run_pretrain"])) == 0
    assert main("depth_estimation", shortened(given["run_depth_estimation"])) == 0
    for name in ("pre", "rooms-depth"):
        assert Path(f"outputs/{name}/pictures/evaluation_step_00000002.png").is_file()
        assert Path(f"outputs/{name}/report.html").is_file()
    Path("PHOTOS").mkdir()
    Image.new("RGB", (64, 48), "grey").save("PHOTOS/grey.png")
    assert predict.main(given["predict"]) == 0
    with Image.open("pictures/depth/grey.png") as depth:
        assert depth.size == (64, 48) and depth.mode.startswith("I")
