"""How results are written: for people, for programs, and so that they harm neither."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from arriero.agent.cli.failures import NothingToDo
from arriero.agent.cli.output import Column, Format, Kind, Output, human_bytes, human_seconds, shown

COLUMNS = [Column("name"), Column("bytes", "SIZE", Kind.BYTES)]
ROWS = [{"name": "a", "bytes": 1536, "extra": [1]}, {"name": "b", "bytes": None, "extra": []}]


def written(capsys, chosen, rows=ROWS, columns=COLUMNS):
    capsys.readouterr()
    Output(chosen).rows(columns, rows)
    return capsys.readouterr().out


def test_tables_have_binary_units_and_others_bytes(capsys):
    table = written(capsys, Format.TABLE)
    assert table.splitlines()[0].split() == ["NAME", "SIZE"]
    assert "1.5 KiB" in table
    assert json.loads(written(capsys, Format.JSON)) == ROWS
    assert [json.loads(line) for line in written(capsys, Format.JSONL).splitlines()] == ROWS
    assert list(csv.reader(io.StringIO(written(capsys, Format.CSV)))) == [
        ["name", "bytes"],
        ["a", "1536"],
        ["b", ""],
    ]


def test_without_a_terminal_the_default_is_json_lines(capsys):
    assert Output().format is Format.JSONL
    assert json.loads(written(capsys, None).splitlines()[0])["bytes"] == 1536


def test_a_piped_table_is_not_cut(capsys):
    name = "x" * 500
    assert name in written(capsys, Format.TABLE, [{"name": name, "bytes": 1}])


def test_nothing_is_valid_in_every_format(capsys):
    assert json.loads(written(capsys, Format.JSON, [])) == []
    assert written(capsys, Format.JSONL, []) == ""
    assert written(capsys, Format.CSV, []) == "name,bytes\n"
    assert written(capsys, Format.TABLE, []) == ""


def test_nothing_is_an_error_for_those_who_ask(capsys):
    with pytest.raises(NothingToDo):
        Output(Format.JSON, error_on_nothing=True).rows(COLUMNS, [])


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@A1", "'@A1"), ("\t=1", "\\t=1"), ("\r=1", "\\r=1")],
)
def test_csv_cells_are_no_formulas(capsys, text, cell):
    rows = list(
        csv.reader(io.StringIO(written(capsys, Format.CSV, [{"name": text, "bytes": -1}]), newline=""))
    )
    assert rows[1] == [cell, "-1"], "text is disarmed, a number stays one"


def test_text_acts_on_no_terminal(capsys):
    table = written(
        capsys, Format.TABLE, [{"name": "\x1b[31mred\x1b[0m [bold]x[/bold]\u202e\x07", "bytes": 1}]
    )
    assert "\x1b" not in table
    assert "\x07" not in table
    assert "\u202e" not in table
    assert "[bold]x[/bold]" in table
    assert shown("ü ok") == "ü ok"


def test_times_are_iso_in_utc(capsys):
    paris = datetime(2024, 11, 8, 1, 2, 3, tzinfo=timezone(timedelta(hours=1)))
    row = {
        "created_at": paris,
        "updated_at": "Fri, 08 Nov 2024 00:02:03 UTC",
        "name": "Fri, 08 Nov 2024 00:02:03 UTC",
    }
    [told] = json.loads(written(capsys, Format.JSON, [row], []))
    assert told == {
        "created_at": "2024-11-08T00:02:03Z",
        "updated_at": "2024-11-08T00:02:03Z",
        "name": "Fri, 08 Nov 2024 00:02:03 UTC",
    }
    assert paris.astimezone(UTC).hour == 0


def test_a_record_and_a_value(capsys):
    Output(Format.TABLE).record({"bytes": 2048, "open": True, "none": None})
    table = capsys.readouterr().out
    assert "2.0 KiB" in table
    assert "yes" in table
    Output(None).value("token", "secret", {"token": "secret", "id": 1})
    assert capsys.readouterr().out == "secret\n"
    Output(Format.JSON).value("token", "secret", {"token": "secret", "id": 1})
    assert json.loads(capsys.readouterr().out) == {"token": "secret", "id": 1}


def test_rows_go_out_as_they_come(capsys):
    def endless():
        yield ROWS[0]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Output(Format.JSONL).rows(COLUMNS, endless())
    assert json.loads(capsys.readouterr().out) == ROWS[0]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**40, "3.0 TiB"), (2**72, "4096.0 EiB")],
)
def test_sizes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250 ms"), (2.5, "2.5 s"), (75, "1 min 15 s"), (3660, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert human_seconds(seconds) == text


def test_progress_is_silent_without_a_terminal(capsys):
    with Output(Format.JSON).progress("Reading", 10) as advance:
        advance(3)
    assert capsys.readouterr().err == ""
    with Output(Format.JSON, progress=True).progress("Reading", 10, kind=Kind.BYTES) as advance:
        advance(10)
    assert "Reading" in capsys.readouterr().err


def test_times_in_tables_have_milliseconds(capsys):
    row = {"at": "2024-11-08T00:02:03.123456Z"}
    assert written(capsys, Format.TABLE, [row], [Column("at", kind=Kind.TIME)]).splitlines()[1] == (
        "2024-11-08T00:02:03.123Z"
    )
    assert json.loads(written(capsys, Format.JSON, [row], [])) == [row]
