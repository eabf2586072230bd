import csv
import os

import pytest

from m33d_hf.data.files import skips
from m33d_hf.data.files.skips import (
    FILE_NAME,
    SkipLedger,
    SkippedFile,
    SkippedList,
    append_skipped,
    count_skipped,
    incomplete_entry,
    read_skipped,
)
from m33d_hf.errors import ConfigError, DataError

FILES = [SkippedFile(f"{index}.png", "truncated, at byte 7", f"key{index}") for index in range(20)]


def meta(indices, skipped=()):
    return {"keys": [], "indices": list(indices), "skipped": list(skipped)}


def test_files_are_listed_once_with_reason_and_key(tmp_path):
    path = tmp_path / "out" / "skipped_files.csv"
    ledger = SkipLedger(path, 0.5, 100)
    ledger.record(meta(range(4)))
    assert not path.exists()
    ledger.record(meta(range(4, 8), FILES[:2]))
    ledger.record(meta(range(4, 8), FILES[1:3]))
    with path.open(newline="") as stream:
        table = list(csv.reader(stream))
    assert table[0] == ["path", "reason", "key"]
    assert [tuple(row) for row in table[1:]] == [tuple(file) for file in FILES[:3]]
    assert read_skipped(path) == FILES[:3]


def test_ranks_and_resumed_runs_share_the_list_but_not_the_budget(tmp_path):
    path = tmp_path / "skipped_files.csv"
    append_skipped(path, FILES[:15])
    ledger = SkipLedger(path, 0.01, 5000)
    ledger.record(meta(range(8), FILES[14:16]))
    assert read_skipped(path) == FILES[:16]
    assert ledger.bad == 2 and not ledger.over_budget()


def test_counts_are_of_distinct_samples_and_files():
    ledger = SkipLedger(None, 0.1, 100)
    for _ in range(3):
        ledger.record(meta(range(10), FILES[:1]))
    assert (ledger.bad, ledger.seen, ledger.bad_fraction) == (1, 10, 0.1)


def test_budget_of_a_small_data_set_counts_the_whole_of_it():
    ledger = SkipLedger(None, 0.1, 20)
    assert not ledger.over_budget(2, 4)
    assert ledger.over_budget(3, 4)
    ledger.check(2, 4)


def test_budget_of_a_large_data_set_waits_for_evidence():
    ledger = SkipLedger(None, 0.01, 1_000_000)
    assert not ledger.over_budget(1, 8)
    assert ledger.over_budget(11, 200)
    assert not ledger.over_budget(11, 5000)


def test_over_budget_error_says_where_to_look(tmp_path):
    ledger = SkipLedger(tmp_path / "skipped_files.csv", 0.0, 50)
    ledger.check()
    ledger.record(meta(range(5), FILES[:1]))
    with pytest.raises(DataError, match=r"1 unusable files among the 5.*skipped_files\.csv") as caught:
        ledger.check()
    assert "0.png: truncated" in str(caught.value) and "--data.max_bad_fraction" in str(caught.value)


def test_a_senseless_budget_is_refused():
    with pytest.raises(ConfigError, match=r"max_bad_fraction is 5"):
        SkipLedger(None, 5, 10)


def test_one_bad_file_never_stops_a_small_data_set_unless_none_is_allowed(tmp_path):
    assert not SkipLedger(tmp_path / "a.csv", 0.01, 24).over_budget(1, 24)
    assert SkipLedger(tmp_path / "a.csv", 0.01, 24).over_budget(2, 24)
    assert SkipLedger(tmp_path / "a.csv", 0.0, 24).over_budget(1, 24)


def test_file_names_that_are_not_utf8_are_listed(tmp_path):
    file = SkippedFile(os.fsdecode(b"/videos/caf\xe9.avi"), "is empty", os.fsdecode(b"caf\xe9"))
    ledger = SkipLedger(tmp_path / FILE_NAME, 0.5, 10)
    ledger.record({"indices": [0], "skipped": [file]})
    assert read_skipped(tmp_path / FILE_NAME) == [file]
    assert b"caf\xe9.avi" in (tmp_path / FILE_NAME).read_bytes()


def test_incomplete_files_are_listed_and_do_not_count(tmp_path):
    lacking = [incomplete_entry(file.path, "half of it is missing", file.key) for file in FILES[:2]]
    assert count_skipped(tmp_path) == ""
    ledger = SkipLedger(tmp_path / FILE_NAME, 0.0, 100)
    for _ in range(2):
        ledger.record({**meta(range(4)), "incomplete": lacking})
    assert read_skipped(tmp_path / FILE_NAME) == lacking and ledger.bad == 0 and not ledger.over_budget()
    assert count_skipped(tmp_path) == "2 incomplete and used up to where they end, see skipped_files.csv there"
    ledger.record(meta(range(4), FILES[:1]))  # a frame of one of them is damaged besides
    assert read_skipped(tmp_path / FILE_NAME) == [*lacking, FILES[0]] and ledger.over_budget()
    assert count_skipped(tmp_path).startswith("1 file left out, 2 incomplete")


def test_what_was_read_of_the_list_is_not_read_again(tmp_path, monkeypatch):
    """Bytes read grow with the list, not with its square; rows of other ranks are still seen."""
    parsed = []
    monkeypatch.setattr(skips, "_rows", lambda text, rows=skips._rows: parsed.append(len(text)) or rows(text))
    path = tmp_path / FILE_NAME
    ledger = SkipLedger(path, 1.0, 1000)
    for file in FILES:
        ledger.record(meta([], [file]))
    assert 0 < sum(parsed) <= path.stat().st_size
    other = SkippedFile("other.png", "two\nlines", "")
    append_skipped(path, [other])
    ledger.record(meta([], [other, SkippedFile("last.png", "x", "")]))
    assert [file.path for file in read_skipped(path)] == [*(file.path for file in FILES), "other.png", "last.png"]


def test_a_list_that_is_removed_is_begun_anew(tmp_path):
    listed = SkippedList(tmp_path / FILE_NAME)
    listed.append(FILES[:3])
    (tmp_path / FILE_NAME).unlink()
    listed.append(FILES[1:2])
    assert read_skipped(tmp_path / FILE_NAME) == FILES[1:2]
