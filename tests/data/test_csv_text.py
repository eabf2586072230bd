"""Tables as CSV: what a reader gets back."""

from __future__ import annotations

import csv
import math

import numpy as np

from m33d_hf.data.csv_text import csv_text


def test_a_reader_gets_back_what_was_written() -> None:
    rows = [["a, b", 'he said "x"', 3], ["two\nlines", "", -1]]
    text = csv_text(["one", "two", "three"], iter(rows))
    assert list(csv.reader(text.splitlines(keepends=True))) == [
        ["one", "two", "three"], ["a, b", 'he said "x"', "3"], ["two\nlines", "", "-1"]
    ]  # fmt: skip
    assert "\r" not in text


def test_shares_are_rounded_and_those_without_value_empty() -> None:
    rows = [[1 / 3, np.float64(2 / 3), math.nan, 5, "0.123456789", True]]
    assert csv_text("abcdef", rows, digits=4) == "a,b,c,d,e,f\n0.3333,0.6667,,5,0.123456789,True\n"
    assert csv_text(["x"], [[1 / 3]]) == f"x\n{1 / 3!r}\n", "as Python writes it"
