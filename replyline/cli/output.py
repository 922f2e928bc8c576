"""What commands print: tables for people, JSON for programs."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# C0 but tab and newline, DEL, and C1 (ECMA-48): what a terminal obeys instead of showing. People choose their own names.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PIPE_WIDTH = 200
_ID_CHARS = 36


def harmless(text: str) -> str:
    """The text without the control characters that a terminal would obey."""
    return _CONTROLS.sub("", text)


class SafeConsole(Console):
    """A console whose texts cannot move the cursor, change colours or set the title; only its own styles do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is printed, each without control characters."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


# A pipe has no width of its own: wide enough that nothing is cut there.
console = SafeConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
errors = SafeConsole(stderr=True)

Row = Mapping[str, object]


def print_json(value: object) -> None:
    """One JSON document on standard output, whole or not at all; control characters in it are escaped."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, indent=2)
    sys.stdout.write(f"{_CONTROLS.sub(_escape, text)}\n")


def print_rows(rows: Sequence[Row], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """All of each row as JSON, or its `columns` as a table; `empty` is said where there is nothing.

    A table that is too wide for the terminal becomes a block of lines for each row, so that an id is never split over lines.
    """
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print(empty, style="dim")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    for number, column in enumerate(columns):
        whole = all(" " not in line[number].plain and len(line[number]) <= _ID_CHARS for line in cells)
        table.add_column(
            column.replace("_", " "),
            overflow="fold",
            min_width=max(_longest_id(line[number]) for line in cells) if whole else None,
        )
    for line in cells:
        table.add_row(*line)
    heads = [Text(column.replace("_", " ")) for column in columns]
    if sum(max(map(_longest_id, column)) + 1 for column in zip(heads, *cells, strict=True)) <= console.width:
        console.print(table)
        return
    for row in rows:
        _print_block({column: row.get(column) for column in columns})
        console.print()


def print_record(row: Row, *, as_json: bool) -> None:
    """One record: as JSON, or a line for each field."""
    if as_json:
        print_json(row)
    else:
        _print_block(row)


def seconds(value: float | None) -> str:
    """A duration for people: 12 ms, 3.4 s, 5 min, 2 h."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _longest_id(cell: Text) -> int:
    """The columns that a cell needs so that no word of it is split; longer ones than an id may be."""
    return max((min(cell_len(word), _ID_CHARS) for word in cell.plain.split()), default=0)


def _print_block(row: Row) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in row.items():
        table.add_row(name.replace("_", " "), _cell(value))
    console.print(table)


def _cell(value: object) -> Text:
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, datetime):
        return Text(value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(value, Mapping | list | tuple):
        return Text(harmless(json.dumps(value, default=_plain, ensure_ascii=False)))
    return Text(harmless(str(value)))


def _escape(control: re.Match[str]) -> str:
    return f"\\u{ord(control[0]):04x}"


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
