"""CSV files as people have them: other separators, marks of missing values, thousands, encodings, a column of numbers.

What a spreadsheet or pandas wrote is read as it was meant: semicolons and tabs, decimal commas beside them, UTF-16, the
marks of missing values that pandas knows, `1,000` for a thousand, and the unnamed column of row numbers, which is left
out.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

__all__ = ["read_csv", "reads_as_number", "require_unique"]

SEPARATORS = ",;\t|"
# those of pandas, so that both read the same
MISSING = [
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", ""),
]
THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
DECIMAL_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"


def read_csv(path: Path) -> pl.DataFrame:
    """The table of a file, its types found from all rows.

    Raises:
        UnicodeDecodeError: it is neither UTF-8 nor UTF-16 with a byte order mark.
        polars.exceptions.PolarsError: rows are longer than the header, or there is nothing.
        ValueError: a column has no name and is not of row numbers, or two have the same.
    """
    with path.open("rb") as file:
        is_wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    encoding = "utf-16" if is_wide else "utf-8-sig"
    with path.open(newline="", encoding=encoding) as file:
        line = file.readline()
        separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader([line], delimiter=mark), [])))
        file.seek(0)
        names = next(csv.reader(file, delimiter=separator), [])
    require_unique(names)  # polars would rename the second of two equal names
    source = io.BytesIO(path.read_text(encoding=encoding).encode()) if is_wide else path
    table = pl.read_csv(source, separator=separator, null_values=MISSING, infer_schema_length=None, glob=False)
    return _without_row_numbers(_with_numbers(table, separator), names)


def reads_as_number(text: str) -> bool:
    """Whether a cell of text is a number, also by thousands."""
    return re.match(NUMBER, text.strip()) is not None or re.match(THOUSANDS, text.strip()) is not None


def require_unique(names: Sequence[str]) -> None:
    """Raises a ValueError where two columns have one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"columns must have different names; {', '.join(map(repr, twice))} is there more than once")


def _with_numbers(table: pl.DataFrame, separator: str) -> pl.DataFrame:
    """Columns of text whose every entry is a number, by thousands or with a decimal comma, as numbers."""
    for name in [name for name, dtype in table.schema.items() if dtype == pl.String]:
        text = table[name].str.strip_chars()
        known = text.drop_nulls()
        if not len(known):
            continue
        if (known.str.contains(THOUSANDS) | known.str.contains(NUMBER)).all():
            numbers = text.str.replace_all(",", "")
        elif separator != "," and (known.str.contains(DECIMAL_COMMA) | known.str.contains(NUMBER)).all():
            numbers = text.str.replace(",", ".", literal=True)
        else:
            continue
        is_whole = not bool(numbers.drop_nulls().str.contains(r"[.eE]").any())
        table = table.with_columns(numbers.cast(pl.Int64 if is_whole else pl.Float64).alias(name))
    return table


def _without_row_numbers(table: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    if "" not in names:
        return table
    place = names.index("")
    column = table.to_series(place)
    if column.dtype.is_integer() and bool((column == pl.int_range(len(column), eager=True)).all()):
        return table.drop(column.name)
    raise ValueError(f"column {place + 1} has no name, and does not number the rows; name it, or take it out")
