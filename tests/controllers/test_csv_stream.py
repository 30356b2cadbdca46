"""CSV: what a spreadsheet would compute is defused, what a reader reads is what was written."""

import csv
from io import StringIO

import pytest

from service.controllers.csv_stream import defuse, to_csv


class TestDefusing:
    @pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠"])  # noqa: RUF001 these are meant
    def test_puts_an_apostrophe_before_what_begins_a_formula(self, beginning: str) -> None:
        assert defuse(f"{beginning}cmd|' /C calc'!A0") == f"'{beginning}cmd|' /C calc'!A0"

    @pytest.mark.parametrize("text", ["", "rent", "a=b", "'quoted", "1-1", "é", " "])
    def test_leaves_other_text_as_it_is(self, text: str) -> None:
        assert defuse(text) == text


class TestRecords:
    @pytest.mark.parametrize("text", ["a,b", 'say "hi"', "two\r\nlines", "one\nline", "", "ünïcödé ₹", ";", "'=1"])
    def test_are_read_as_they_were_written(self, text: str) -> None:
        written = to_csv([(text, -5, "0.05"), ("next", 2, "")])
        assert list(csv.reader(StringIO(written.decode(), newline=""), strict=True)) == [
            [text, "-5", "0.05"],
            ["next", "2", ""],
        ]
        assert written.endswith(b"\r\n")
