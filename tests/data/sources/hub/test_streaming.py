"""sources/hub over a network: a repository of a hub on this machine, addresses, and no network at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.data_hub import serving_data
from helpers.frames_on_disk import rgb_array, save, write_frames
from helpers.preparations import assert_same_items, prepared
from helpers.range_server import serving_ranges
from helpers.ranks import free_port
from m33d_hf.data.files import remote
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.hub.source import HubSource
from m33d_hf.errors import ConfigError, DataError, UnreachableError

COUNT = 23


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hub")
    source = FolderSource(write_frames(place / "in", COUNT, labels="label/{i}.png"), num_classes=4, depth_unit="mm")
    prepared(source, place / "frames" / "train")
    (place / "frames" / "train" / "README.md").rename(place / "frames" / "README.md")
    card = (place / "frames" / "README.md").read_text().replace("part-*/*.parquet", "train/part-*/*.parquet")
    (place / "frames" / "README.md").write_text(card)
    prepared(source, place / "tars", format="shards")
    save(place / "pictures" / "0.png", rgb_array(0))
    return place


def asked_of(code: str, **environment: str) -> subprocess.Popen[str]:
    """A fresh interpreter: the address of the Hub is read when its client is imported."""
    begin = (
        "import json, sys, time\n"
        "time.sleep = lambda seconds: None\n"  # its client waits longer and longer between its tries
        "from m33d_hf.data.files import remote\n"
        "from m33d_hf.data.sources.hub.source import HubSource\n"
        "from m33d_hf.data.sources.shards.source import ShardsSource\n"
        "from m33d_hf.errors import M33DError\n"
        "def said(make):\n"
        "    try:\n        make()\n"
        "    except M33DError as error:\n        return f'{type(error).__name__}: {error}'\n"
    )
    others = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    clean = {**others, "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", begin + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean
    )


def answer(process: subprocess.Popen[str]) -> Any:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-2000:]
    return json.loads(output.splitlines()[-1])


STREAM = """
from collections import Counter
source = HubSource('org/frames', split='train', streaming=True)
tars = ShardsSource('hf://datasets/org/tars')
print(json.dumps({
    'keys': [source.keys(), tars.keys()],
    'sums': [[int(s[i].read([0]).rgb.sum()) for i in (20, 3)] for s in (source, tars)],
    'files': [str(s.rows.files[0]) for s in (source, tars)],
    'split': said(lambda: HubSource('org/frames', split='test', streaming=True)),
    'pictures': said(lambda: HubSource('org/pictures', depth='none', streaming=True)),
    'nothing': said(lambda: HubSource('org/nothing', streaming=True)),
}))
"""


def test_a_repository_is_read_where_it_lies(place: Path, tmp_path: Path) -> None:
    repos = {f"org/{name}": place / name for name in ("frames", "tars", "pictures")}
    with serving_data(repos) as traffic:
        told = answer(asked_of(STREAM, HF_ENDPOINT=traffic.url, HF_HOME=str(tmp_path)))
        known = HubSource(place / "frames" / "train")
        assert told["keys"] == [known.keys()] * 2
        expected = [int(known[i].read([0]).rgb.sum()) for i in (20, 3)]  # type: ignore[union-attr]
        assert told["sums"] == [expected, expected]
        assert "/frames@" in told["files"][0]  # a commit: what is pushed meanwhile changes nothing
        tars = [size for name, _, size in traffic.ranges if name.endswith(".tar")]
        assert len(tars) == 2 and max(tars) < 8000  # two frames of 7 kB, and nothing ahead of them
    assert "has no split 'test'; it has train" in told["split"]
    assert "does not hold Parquet files, but hf://" in told["pictures"] and "refs/convert/parquet" in told["pictures"]
    assert told["nothing"].startswith("DataError: org/nothing cannot be loaded from the Hub")
    assert not list(tmp_path.rglob("*.parquet"))  # nothing was kept


NO_NETWORK = """
remote.DELAYS = (0.0,)
print(json.dumps([said(lambda: HubSource('user/rgbd-frames', streaming=s)) for s in (False, True)]
                 + [said(lambda: ShardsSource('hf://datasets/user/tars'))]))
"""


def assert_clear(repository: list[str], question: str) -> None:
    for said in repository:
        assert said.startswith("DataError: user/rgbd-frames cannot be loaded from the Hub (and the cache")
        assert question in said
        assert said.endswith("A data set that was downloaded is read by its folder: --data.root FOLDER.")


def test_a_repository_without_a_network_is_a_clear_error(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    *repository, tars = answer(asked_of(NO_NETWORK, HF_ENDPOINT=nobody, HF_HOME=str(tmp_path)))
    assert_clear(repository, "Is there a network, is the name right")
    assert tars.startswith("UnreachableError: hf://datasets/user/tars cannot be read after 2 tries")


def test_offline_by_the_hub_s_own_switch() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # of all tests
    said = []
    for streaming in (False, True):
        with pytest.raises(DataError) as caught:
            HubSource("user/rgbd-frames", streaming=streaming)
        said.append(f"DataError: {caught.value}")
    assert_clear(said, "HF_HUB_OFFLINE is set, so nothing is downloaded: unset it")


def test_an_address(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = HubSource(place / "frames", split="train")
    with serving_ranges(place) as traffic:
        root = f"{traffic.url}/frames"
        with pytest.raises(ConfigError, match=r"is an address\. Read it where it lies with --data\.options\.streaming"):
            HubSource(root)
        source = HubSource(root, split="train", streaming=True)
        traffic.ranges.clear()
        assert_same_items(known, source)
        assert source.notes[1].startswith("streamed: a row group of 2.56 rows, 0.01")
        groups = sum(footer.num_row_groups for footer in source.rows._footers.values())  # type: ignore[attr-defined]
        assert len(traffic.ranges) <= 2 * groups  # of neighbours one pays
        with pytest.raises(DataError, match="no split 'test'"):
            HubSource(root, split="test", streaming=True)
        monkeypatch.setattr(remote, "DELAYS", ())
        traffic.failing = 1
        with pytest.raises(UnreachableError, match="cannot be read after 1 tries"):
            source.rows.read([0], ["rgb"])
        assert source[0].read([0]).rgb is not None


def test_large_row_groups_are_warned_of(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [{"bytes": (_png(i)), "path": None} for i in range(40)]}
    (tmp_path / "data").mkdir()
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", batch_size=20)
    with serving_ranges(tmp_path) as traffic:
        source = HubSource(f"{traffic.url}/data", split="train", depth="none", streaming=True)
    assert "a row group of 20 rows" in source.notes[1] and "WARNING: that is much for a random row" in source.notes[1]


def _png(number: int) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rgb_array(number)).save(stream, format="PNG")
    return stream.getvalue()
