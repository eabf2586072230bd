"""The licence of weights is that of what a run began from, whatever lies there later and wherever one looks from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.hub_server import Blob, Repo, client_environment, running
from helpers.tiny_task import StoppingTask, TinyTask, tiny_arguments
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import HubError
from m33d_hf.hub.lineage import choose_licence, trace
from m33d_hf.hub.scrubbing import scrub_training
from m33d_hf.training.run.loop import train

MAE, DINO, NC = "mae_pretrain_vit_base.pth", "facebook/dinov2-base", "cc-by-nc-4.0"


def wrote(folder: Path, init_from: str | None, width: int = 8, **more: Any) -> Path:
    """The train_config.json of a run, as an earlier version left it."""
    folder.mkdir(parents=True)
    arguments = {"task": "pretraining", "data": {"source": "rooms"}, "model": {"hidden_size": width}, "seed": 1}
    write_sealed_json(folder / "train_config.json", {"args": {**arguments, "init_from": init_from}, **more})
    return folder


def licence(folder: Path, asked: str | None = None) -> str:
    """For a card; "asked for" where it has to be said."""
    try:
        return choose_licence(trace(read_sealed_json(folder / "train_config.json")), asked)
    except HubError as error:
        return "asked for" if "not known here" in str(error) else "refused"


def test_what_lies_at_the_path_later_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrote(Path("here/pre"), MAE)
    wrote(Path("there/pre"), DINO)
    monkeypatch.chdir(tmp_path / "here")
    train(tiny_arguments("run", init_from="pre", checkpoint__every_steps=3), StoppingTask(7))
    for place in ("here", "there", "."):
        monkeypatch.chdir(tmp_path / place)
        assert licence(tmp_path / "here" / "run") == NC
        assert licence(tmp_path / "here" / "run", "apache-2.0") == "refused"
    # Resumed, here or elsewhere, the run is not started from what is there by now.
    monkeypatch.chdir(tmp_path / "there")
    train(tiny_arguments("on", init_from="pre", resume=str(tmp_path / "here/run")), TinyTask())
    shutil.rmtree(tmp_path / "here/pre")
    wrote(tmp_path / "here/pre", DINO)
    monkeypatch.chdir(tmp_path / "here")
    train(tiny_arguments("run", init_from="pre"), TinyTask())
    assert licence(tmp_path / "here" / "run") == licence(tmp_path / "there" / "on") == NC
    # And who starts from it inherits that.
    train(tiny_arguments("next", init_from="run"), TinyTask())
    shutil.rmtree(tmp_path / "here" / "run")
    assert licence(tmp_path / "here" / "next") == NC
    steps = read_sealed_json(Path("next/train_config.json"))["lineage"]["steps"]
    assert len(steps) == 4 and steps[-1] == f"released weights {MAE}" and "pretraining" in steps[2]


def test_a_path_of_an_earlier_version_forbids_but_permits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one folder it led to MAE, from another to weights that are free: who knows which were meant?"""
    run = wrote(tmp_path / "run", "pre")
    for place, origin, found in [("a", MAE, NC), ("b", DINO, "asked for"), ("c", None, "asked for")]:
        wrote(tmp_path / place / "pre", origin)
        monkeypatch.chdir(tmp_path / place)
        assert licence(run) == found
    monkeypatch.chdir(tmp_path)
    assert licence(run) == "asked for" and licence(run, "other") == "other"


@pytest.mark.parametrize(("width", "found"), [(8, "apache-2.0"), (16, "asked for")])
def test_a_whole_path_is_followed_where_the_weights_can_have_been_these(tmp_path: Path, width: int, found: str) -> None:
    before = wrote(tmp_path / "pre", None, width)
    assert licence(wrote(tmp_path / "run", str(before))) == found


def test_who_trains_on_from_a_published_model_inherits_its_licence(tmp_path: Path) -> None:
    """Its arguments do not tell init_from any more: it looked like a start from nothing."""
    run = wrote(tmp_path / "run", MAE)
    trained = read_sealed_json(run / "train_config.json")
    published = tmp_path / "published"
    published.mkdir()
    told = scrub_training(trained, trace(trained))
    assert told["args"]["init_from"] is None
    write_sealed_json(published / "train_config.json", told)
    train(tiny_arguments(tmp_path / "new", init_from=str(published)), TinyTask())
    assert licence(published) == licence(tmp_path / "new") == NC
    # As earlier versions published it.
    write_sealed_json(published / "train_config.json", {**told, "lineage": told["lineage"]["steps"]})
    assert licence(published) == NC and licence(wrote(tmp_path / "old", str(published))) == NC
    for steps in (["a training", "weights of unknown origin"], [], "mended by hand", None):
        write_sealed_json(published / "train_config.json", {**told, "lineage": steps})
        assert licence(published) == "asked for"


def test_a_record_that_is_damaged_stops_no_training_but_tells_nothing(tmp_path: Path) -> None:
    before = wrote(tmp_path / "pre", None)
    file = before / "train_config.json"
    file.write_text(file.read_text().replace("rooms", "roams"))
    train(tiny_arguments(tmp_path / "run", init_from=str(before)), TinyTask())
    assert licence(tmp_path / "run") == "asked for"
    with pytest.raises(HubError, match="cannot be followed"):
        trace(read_sealed_json(wrote(tmp_path / "old", str(before)) / "train_config.json"))


# Read weights, or what a run writes down at its start, by the name of what it starts from.
_AT_START = """
import sys
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.settling.lineage import lineage_at_start
from m33d_hf.weights.own import find_own
for name in sys.argv[2:]:
    if sys.argv[1] == "read":
        find_own(name)
        continue
    found = lineage_at_start(RunArguments(task="depth_estimation", output_dir="unused", init_from=name), None)
    print(name, found.licence, found.known, len(found.steps))
"""


def test_a_model_of_the_hub_hands_on_its_licence(tmp_path: Path) -> None:
    """By its record in the revision that is named; not by that of a model of somebody else."""
    records = {}
    for licence, origin in (("nc", MAE), ("free", DINO)):
        trained = read_sealed_json(wrote(tmp_path / licence, origin) / "train_config.json")
        file = write_sealed_json(tmp_path / licence / "published.json", scrub_training(trained, trace(trained)))
        records[licence] = {"train_config.json": Blob(file.read_bytes(), False)}
    model = {"model.safetensors": Blob(b"weights", False)}
    ours, theirs = ({"config.json": Blob(f'{{"model_type": "{of}"}}'.encode(), False)} for of in ("m33d", "vit"))
    known, unknown = f"{NC} True 3", "None False 2"
    wanted = {
        "org/rooms": known,
        "org/rooms@v1": "apache-2.0 True 3",
        "org/foreign": unknown,
        "org/without": unknown,
        "org/not-there": unknown,
    }
    with running() as hub:
        hub.repos["org/rooms"] = Repo()
        hub.repos["org/rooms"].tags["v1"] = hub.repos["org/rooms"].commit(model | ours | records["free"], "free")
        hub.repos["org/rooms"].commit(model | ours | records["nc"], "not free")
        hub.repos |= {"org/foreign": Repo(), "org/without": Repo()}
        hub.repos["org/foreign"].commit(model | theirs | records["nc"], "another type")
        hub.repos["org/without"].commit(model | ours, "no record")
        # Before the weights are read, and by what reading them has left on this machine, without asking anybody.
        for home, what, more in (("a", "look", {}), ("b", "read", {}), ("b", "look", {"HF_HUB_OFFLINE": "1"})):
            environment = client_environment(hub, str(tmp_path / home), token=None) | more
            words = [sys.executable, "-c", _AT_START, what, *wanted]
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path / "nc"
            )
            said = [f"{name} {told}" for name, told in wanted.items()] if what == "look" else []
            assert done.stdout.splitlines() == said and done.returncode == 0, done.stderr


def test_a_run_of_an_earlier_version_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it started from may have been a folder whose name looks like a hub id."""
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asked the hub"))
    run = wrote(tmp_path / "run", "outputs/pre")
    assert licence(run) == "asked for" and licence(run, "other") == "other"
