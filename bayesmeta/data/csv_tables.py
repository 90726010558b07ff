"""CSV files as people have them: other separators, marks of missing values, thousands, encodings, a column of numbers.

What a spreadsheet, pandas or R wrote is read as it was meant: semicolons and tabs, decimal commas beside them, UTF-16,
the marks of missing values that pandas knows, `1,000` for a thousand. Blank lines, columns without a name and without
an entry, spaces around entries and the unnamed column of row numbers are left out. Errors name
the line of a row, counting from 1.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

__all__ = [
    "BadRow",
    "is_row_numbers",
    "line_of",
    "naming_lines",
    "not_numbers",
    "read_csv",
    "reads_as_number",
    "require_unique",
]

SEPARATORS = ",;\t|"
NUM_SNIFFED = 20  # lines from which the separator is told
# those of pandas, so that both read the same
MISSING = [
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", ""),
]
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
DECIMAL_COMMA = r"^[+-]?(\d*|[1-9]\d{0,2}(\.\d{3})+),\d+([eE][+-]?\d+)?$"
TRUTH = r"^(?i)(true|false)$"
NO_NAME = re.compile(r"(Unnamed: \d+)?")  # the second is what pandas calls a column that it read without one
SPREADSHEET = re.compile(r"sep=(.)[\r\n]*")  # a first line by which Excel is told the separator


@dataclass(frozen=True)
class Layout:
    """How a file is written: its encoding, separator and end of line, and how many lines come before the table."""

    encoding: str
    separator: str
    is_plain: bool  # as polars itself reads it
    skip: int = 0


def read_csv(path: Path) -> pl.DataFrame:
    """The table of a file, its types found from all rows.

    Raises:
        ValueError: it is not text in UTF-8, or in UTF-16 with a byte order mark; a line has not as many cells as the
            header; a column has no name and is not of row numbers, or two have the same.
        polars.exceptions.PolarsError: there is nothing, or it cannot be read for another reason.
    """
    try:
        return _read(path)
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {path} as a csv file: {_undecodable(path)}") from None


def line_of(path: Path, row: int) -> int:
    """The line of a file, counting from 1, in which a row of its table begins, counting from 0."""
    return next(islice(_records(path, _layout(path)), row + 1, None))[0]


class BadRow(ValueError):
    """What is wrong with one row: the words before its place in a message, its number, and the words after."""

    def __init__(self, before: str, row: int, after: str) -> None:
        super().__init__(f"{before}row {row}{after}")
        self.before, self.row, self.after = before, row, after


@contextmanager
def naming_lines(source: Any) -> Iterator[None]:
    """Let errors of rows name lines, where the table came from a CSV file."""
    try:
        yield
    except BadRow as error:
        if not isinstance(source, str | Path) or Path(source).suffix.lower() != ".csv":
            raise
        line = line_of(Path(source), error.row)
        raise ValueError(f"{error.before}line {line} of {source}{error.after}") from None


def reads_as_number(text: str) -> bool:
    """Whether a cell of text is a number, also by thousands."""
    return re.match(NUMBER, text.strip()) is not None or re.match(THOUSANDS, text.strip()) is not None


def not_numbers(cells: Sequence[str | None]) -> list[int]:
    """Positions of cells that are no numbers; a decimal comma is one where nothing else is wrong."""
    wrong = [i for i, cell in enumerate(cells) if cell is not None and not reads_as_number(cell)]
    return [i for i in wrong if not re.match(DECIMAL_COMMA, str(cells[i]).strip())] or wrong


def is_row_numbers(name: str, column: Any) -> bool:
    """Whether a column without a name has the numbers of rows from 0 (pandas) or 1 (R), in any order."""
    if not NO_NAME.fullmatch(name) or not column.dtype.is_integer() or not len(column):
        return False
    start = column.min()
    return bool(start in (0, 1) and column.n_unique() == len(column) and column.max() == len(column) - 1 + start)


def require_unique(names: Sequence[str]) -> None:
    """Raises a ValueError where two columns have one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"columns must have different names; {', '.join(map(repr, twice))} is there more than once")


# ---- the file


def _read(path: Path) -> pl.DataFrame:
    layout = _layout(path)
    names = [name.strip() for name in next(_records(path, layout), (0, []))[1]]
    if any("\0" in name for name in names):
        raise ValueError(f"cannot read {path} as a csv file: it is not text in UTF-8. Save it as CSV in UTF-8")
    require_unique([name for name in names if name])  # polars would rename the second of two equal names
    source = path if layout.is_plain else io.BytesIO(_as_polars_reads(path, layout))
    try:
        table = pl.read_csv(
            source, separator=layout.separator, null_values=MISSING, infer_schema_length=None, glob=False
        )
    except pl.exceptions.PolarsError:
        path.read_text(encoding=layout.encoding)  # which says where it cannot be decoded
        _require_even(path, layout)
        raise
    if len(table) and table.to_series(-1).has_nulls():  # where polars fills up what a line lacks
        _require_even(path, layout)
    table = table.with_columns(_stripped())
    table = table.filter(~pl.all_horizontal(pl.all().is_null()))
    return _named(_with_numbers(table, layout.separator), names)


def _layout(path: Path) -> Layout:
    with path.open("rb") as file:
        is_wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    encoding = "utf-16" if is_wide else "utf-8-sig"
    with path.open(newline="", encoding=encoding) as file:
        lines = list(islice(file, NUM_SNIFFED))
    first = lines[0] if lines else ""
    if told := SPREADSHEET.fullmatch(first):
        return Layout(encoding, told[1], False, 1)
    separator = max(SEPARATORS, key=lambda mark: _evenness(lines, mark))
    return Layout(encoding, separator, not is_wide and not first.endswith("\r") and _is_unicode(path))


def _is_unicode(path: Path) -> bool:
    """Whether polars can open it; Python also opens names that are no text where the locale is C."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _evenness(lines: list[str], separator: str) -> tuple[int, int]:
    """How many lines have as many cells as the first, and how many that are."""
    widths = [len(cells) for cells in csv.reader(lines, delimiter=separator) if cells]
    return (widths.count(widths[0]), widths[0]) if widths and widths[0] > 1 else (0, 0)


def _records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The header and the rows that have an entry: the line in which each begins, and its cells."""
    with path.open(newline="", encoding=layout.encoding) as file:
        lines = islice(file, layout.skip, None)
        reader, start = csv.reader(lines, delimiter=layout.separator), 1 + layout.skip
        for cells in reader:
            if any(cell.strip() not in MISSING for cell in cells):
                yield start, cells
            start = reader.line_num + 1 + layout.skip


def _as_polars_reads(path: Path, layout: Layout) -> bytes:
    """The table in UTF-8, its lines ended by a line feed."""
    return "".join(path.read_text(encoding=layout.encoding).splitlines(keepends=True)[layout.skip :]).encode()


def _require_even(path: Path, layout: Layout) -> None:
    """Raises a ValueError where a line has more or fewer cells than the header."""
    records = _records(path, layout)
    header, names = next(records, (0, []))
    for line, cells in records:
        if len(cells) != len(names):
            quote = ", or close a quote" if any("\n" in cell for cell in cells) else ""
            raise ValueError(
                f"every line of {path} must have as many cells as its header, line {header}, which has {len(names)}; "
                f"line {line} has {len(cells)}. Add or take out separators there{quote}"
            )


def _undecodable(path: Path) -> str:
    raw = path.read_bytes()
    try:
        raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError as error:
        line, byte = raw[: error.start].count(b"\n") + 1, raw[error.start]
        return (
            f"line {line} is not text in UTF-8: it has the byte {byte:#x}. Save the file as CSV in UTF-8, or give what "
            'pandas.read_csv(..., encoding="latin-1") reads'
        )
    return "it is not text in UTF-8"


# ---- its columns


def _stripped() -> pl.Expr:
    """Columns of text without the spaces around entries, and missing where then nothing is left."""
    text = pl.col(pl.String).str.strip_chars()
    return pl.when(~text.is_in(MISSING)).then(text)


def _with_numbers(table: pl.DataFrame, separator: str) -> pl.DataFrame:
    """The table, text that is all numbers or all booleans read as such, decimal commas and thousands too."""
    columns = {name: table[name] for name, dtype in table.schema.items() if dtype == pl.String}
    columns = {name: text for name, text in columns.items() if text.null_count() < len(text)}
    has_decimal_commas = _has_decimal_commas(table, list(columns.values()), separator)
    for name, text in columns.items():
        if has_decimal_commas and _all_match(text, DECIMAL_COMMA, NUMBER):
            has_comma = text.str.contains(",", literal=True)
            pointed = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
            numbers = pointed.zip_with(has_comma.fill_null(False), text)
        elif _all_match(text, THOUSANDS, NUMBER):
            numbers = text.str.replace_all(",", "")
        elif _all_match(text, TRUTH):
            table = table.with_columns((text.str.to_lowercase() == "true").alias(name))
            continue
        else:
            continue
        is_whole = not bool(numbers.drop_nulls().str.contains(r"[.eE]").any())
        table = table.with_columns(numbers.cast(pl.Int64 if is_whole else pl.Float64).alias(name))
    return table


def _has_decimal_commas(table: pl.DataFrame, columns: list[pl.Series], separator: str) -> bool:
    """Whether `1,000` is one: beside an entry such as `0,5`, or between semicolons where no number has a point."""
    if separator == ",":
        return False
    for text in columns:
        if _all_match(text, DECIMAL_COMMA, THOUSANDS, NUMBER) and not _all_match(text, THOUSANDS, NUMBER):
            return True
    return separator == ";" and not any(dtype.is_float() for dtype in table.dtypes)


def _all_match(text: pl.Series, *patterns: str) -> bool:
    known = text.drop_nulls()
    return bool(known.str.contains("|".join(patterns)).all())


def _named(table: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The table by the names of the header, without columns that have none and are empty or number the rows."""
    kept = {}
    for place, (name, column) in enumerate(zip(names, table, strict=True)):
        if is_row_numbers(name, column) or (not name and column.null_count() == len(column)):
            continue
        if not name:
            raise ValueError(
                f"column {place + 1} has no name, and does not number the rows; name it, or take it out, in pandas by "
                "to_csv(..., index=False)"
            )
        kept[name] = column
    return pl.DataFrame(kept)
