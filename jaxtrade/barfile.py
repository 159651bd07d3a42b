"""Bars on their way in: read from a file or frame and checked row by row.

Nothing is filled, sorted or dropped here: a bad row is an error with one line that names the
file, the row (1-based, without the header), the field and what is right.
"""

import dataclasses
import gzip
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from jaxtrade.specs import JaxtradeError

PRICE_COLUMNS = ("open", "high", "low", "close")
BAR_COLUMNS = (*PRICE_COLUMNS, "volume")
STAMP_COLUMNS = ("timestamp", "datetime", "date", "time")

_EPOCH_UNITS = (1, 10**3, 10**6, 10**9)
_LARGEST = float(np.finfo(np.float32).max)
_PRICE_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from, for messages: a name, and whether rows are lines of a text file."""

    name: str
    has_lines: bool = False

    def reject(self, bad: NDArray[np.bool_], describe: Callable[[int], str]) -> None:
        """Raise a JaxtradeError for the first True row of `bad` bool[T], if there is one."""
        if not bad.any():
            return
        row, count = int(bad.argmax()), int(bad.sum())
        line = f" (line {row + 2})" if self.has_lines else ""
        total = f"{count:,} such row{'s' if count > 1 else ''} in all"
        raise JaxtradeError(f"{self.name}: row {row + 1}{line}: {describe(row)} ({total})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Checked columns.

    timestamps: datetime64[s][T], UTC, rising. values: name in lower case -> f64[T], finite, in
    file order.
    """

    source: Source
    timestamps: NDArray[np.datetime64]
    values: dict[str, NDArray[np.float64]]


def read_file(path: str | pathlib.Path) -> tuple[pd.DataFrame, Source]:
    """The rows of a .csv, .csv.gz, .parquet or .pq file, as they stand.

    Raises:
        JaxtradeError: another suffix, no such file, or not readable as what its suffix says.
    """
    path = pathlib.Path(path)
    is_text = path.name.lower().endswith((".csv", ".csv.gz"))
    if not is_text and path.suffix.lower() not in (".parquet", ".pq"):
        raise JaxtradeError(f"{path.name}: unknown suffix: give .csv, .csv.gz, .parquet or .pq")
    if not path.is_file():
        raise JaxtradeError(f"{path}: no such file")
    source = Source(name=path.name, has_lines=is_text)
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        if not data.strip():
            raise JaxtradeError(f"{path.name}: is empty: give a header and at least 2 rows")
        read = _read_csv if is_text else _read_parquet
        return read(data, source).to_pandas(date_as_object=False), source
    except JaxtradeError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        kind = "CSV text in UTF-8" if is_text else "Parquet"
        reason = _one_line(error)
        raise JaxtradeError(f"{path.name}: not readable as {kind}: {reason}") from error


def _read_parquet(data: bytes, source: Source) -> pa.Table:
    return pa.parquet.read_table(pa.BufferReader(data))


def _read_csv(data: bytes, source: Source) -> pa.Table:
    """Strict: a row with a field too many or too few is an error, an empty line is a row."""
    if b"\0" in data:
        raise ValueError("it holds zero bytes")
    if not data.endswith(b"\n"):
        data += b"\n"  # pyarrow takes a header alone, without a line's end, for an empty file
    misfits: list[Any] = []

    def note(row: Any) -> str:
        misfits.append(row)
        return "skip"

    table = pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(use_threads=False),  # without threads rows have numbers
        parse_options=pa.csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=note),
        convert_options=pa.csv.ConvertOptions(strings_can_be_null=False),
    )
    if misfits:
        bad = np.zeros(misfits[-1].number, np.bool_)
        bad[[row.number - 2 for row in misfits]] = True  # number 1 is the header
        first = misfits[0]
        source.reject(
            bad,
            lambda row: (
                f"{first.actual_columns} fields ({_one_line(first.text)[:60]}): "
                f"give {first.expected_columns}, as the header has"
            ),
        )
    return table


def read_columns(
    frame: pd.DataFrame, source: Source, *, only: Sequence[str] | None = None
) -> Columns:
    """The stamps and the numeric columns of a frame.

    Args:
        frame: a stamp column (timestamp, datetime, date or time, in any case) or a time index,
            and numeric columns.
        source: what to call the rows in messages.
        only: the columns to read; by default all, and then each must be numeric.

    Raises:
        JaxtradeError: a column that is missing, doubled or not numeric; a stamp that cannot be
            read, has a fraction of a second, repeats or comes too early; a number that is missing
            or not finite; fewer than two rows.
    """
    frame = _lower_case(frame, source)
    stamps = [name for name in STAMP_COLUMNS if name in frame.columns]
    _require(["timestamp"] if not stamps else [], frame, source)
    if len(stamps) > 1:
        both = " and ".join(stamps)
        raise JaxtradeError(f"{source.name}: columns {both} are all stamps: give one, timestamp")
    names = [name for name in frame.columns if name != stamps[0]] if only is None else list(only)
    _require([name for name in names if name not in frame.columns], frame, source)
    if len(frame) < 2:
        rows = f"{len(frame)} row{'s' if len(frame) != 1 else ''}"
        raise JaxtradeError(f"{source.name}: has {rows}: give at least 2")
    timestamps = _read_stamps(frame[stamps[0]], stamps[0], source)
    values = {name: _read_numbers(frame[name], name, source) for name in names}
    return Columns(source=source, timestamps=timestamps, values=values)


def read_bars(frame: pd.DataFrame, source: Source) -> Columns:
    """The columns of a frame of bars: open, high, low, close, volume and numeric extras.

    Raises:
        JaxtradeError: as `read_columns`; ticks, quotes, trades or an order book in place of bars;
            a price not above 0; high or low that do not enclose the bar; negative volume.
    """
    lower = _lower_case(frame, source)
    _refuse_other_kinds(list(lower.columns), source)
    _require([name for name in BAR_COLUMNS if name not in lower.columns], lower, source)
    columns = read_columns(frame, source)
    values = columns.values
    for name in PRICE_COLUMNS:
        _reject_where(values[name] <= 0, values, (name,), "a price is above 0", source)
    for name in ("low", "open", "close"):
        is_above = values[name] > values["high"] * (1 + _PRICE_TOLERANCE)
        _reject_where(is_above, values, ("high", name), f"high is at least {name}", source)
    for name in ("open", "close"):
        is_below = values[name] < values["low"] * (1 - _PRICE_TOLERANCE)
        _reject_where(is_below, values, ("low", name), f"low is at most {name}", source)
    for name in ("volume", "spread"):
        if name in values:
            _reject_where(values[name] < 0, values, (name,), f"{name} is 0 or more", source)
    return columns


def _reject_where(
    bad: NDArray[np.bool_],
    values: dict[str, NDArray[np.float64]],
    names: tuple[str, ...],
    right: str,
    source: Source,
) -> None:
    def describe(row: int) -> str:
        return ", ".join(f"{name} is {values[name][row]:.10g}" for name in names) + f": {right}"

    source.reject(bad, describe)


def _lower_case(frame: pd.DataFrame, source: Source) -> pd.DataFrame:
    """The frame with its columns' names in lower case, a time index made a column."""
    names = [str(name).strip().lower() for name in frame.columns]
    index_name = str(frame.index.name).strip().lower()
    has_time_index = isinstance(frame.index, pd.DatetimeIndex) or index_name in STAMP_COLUMNS
    frame = frame.set_axis(names, axis=1)
    if has_time_index and not set(names) & set(STAMP_COLUMNS):
        frame.insert(0, "timestamp", frame.index, allow_duplicates=True)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        found = _listed([str(name) for name in frame.columns])
        raise JaxtradeError(
            f"{source.name}: column {_listed(doubled)} is there more than once, upper and lower "
            f"case being one: give it once (found {found})"
        )
    return frame


def _require(missing: Sequence[str], frame: pd.DataFrame, source: Source) -> None:
    if missing:
        hint = ", volume 0 where none is known" if "volume" in missing else ""
        raise JaxtradeError(
            f"{source.name}: no column {_listed(missing)} (found {_listed(list(frame.columns))}): "
            f"give it in the header{hint}"
        )


def _refuse_other_kinds(names: list[str], source: Source) -> None:
    found = set(names)
    if set(PRICE_COLUMNS) <= found:
        return
    if found & {"ask_price_1", "bid_price_1"}:
        kind = "an order book"
    elif found & {"event", "update_id", "order_id"}:
        kind = "order-book messages"
    elif {"price", "size"} <= found or "side" in found:
        kind = "trades"
    elif {"bid", "ask"} <= found:
        kind = "ticks or quotes"
    else:
        return
    raise JaxtradeError(
        f"{source.name} holds {kind} (columns {_listed(names)}), not bars: "
        f"give {', '.join(BAR_COLUMNS)} bars"
    )


def _read_stamps(column: "pd.Series[Any]", field: str, source: Source) -> NDArray[np.datetime64]:
    """datetime64[s][T] in UTC, proven to rise."""
    stamps = _parse_stamps(column)
    right = "give ISO-8601 like 2018-12-31T14:30:00Z, or an epoch in s, ms, us or ns"
    source.reject(np.isnat(stamps), lambda row: f"{field} is {_shown(column, row)}: {right}")
    seconds = stamps.astype("datetime64[s]")
    right = "a bar starts on a whole second"
    source.reject(seconds != stamps, lambda row: f"{field} is {_shown(column, row)}: {right}")
    steps = np.diff(seconds.astype(np.int64), prepend=seconds[:1].astype(np.int64) - 1)
    right = "sort the rows by time, oldest first"
    source.reject(
        steps < 0,
        lambda row: f"{field} {seconds[row]}Z is before row {row}'s {seconds[row - 1]}Z: {right}",
    )
    right = "give one row a stamp"
    source.reject(steps == 0, lambda row: f"{field} {seconds[row]}Z is there twice: {right}")
    return seconds


def _parse_stamps(column: "pd.Series[Any]") -> NDArray[np.datetime64]:
    """datetime64[T] in UTC, NaT where a stamp cannot be read."""
    if pd.api.types.is_numeric_dtype(column):
        return _parse_epochs(column)
    stamps = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    if stamps.isna().mean() > 0.5:  # text: perhaps epochs, one of them misspelt
        return _parse_epochs(pd.to_numeric(column, errors="coerce"))
    return np.asarray(stamps.dt.tz_localize(None).to_numpy())


def _parse_epochs(column: "pd.Series[Any]") -> NDArray[np.datetime64]:
    """Epochs between 1973 and 2255, in the one unit that fits most of them; else NaT."""
    if pd.api.types.is_integer_dtype(column) and not column.hasnans:
        numbers = column.to_numpy(np.int64)
    else:
        numbers = column.to_numpy(np.float64, na_value=np.nan)
    fits = [(numbers >= 10**8 * unit) & (numbers < 9 * 10**9 * unit) for unit in _EPOCH_UNITS]
    best = int(np.argmax([fit.sum() for fit in fits]))
    nanoseconds = np.where(fits[best], numbers, 0) * (10**9 // _EPOCH_UNITS[best])
    stamps = nanoseconds.astype(np.int64).astype("datetime64[ns]")
    return np.where(fits[best], stamps, np.datetime64("NaT", "ns"))


def _read_numbers(column: "pd.Series[Any]", field: str, source: Source) -> NDArray[np.float64]:
    """f64[T], proven finite and within float32's range."""
    types = pd.api.types
    if types.is_string_dtype(column) or types.is_object_dtype(column):
        column_of_numbers = pd.to_numeric(column, errors="coerce")
        numbers = column_of_numbers.to_numpy(np.float64, na_value=np.nan)
    elif types.is_integer_dtype(column) or types.is_float_dtype(column):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
    else:
        numbers = np.full(len(column), np.nan)
    right = "give a finite number"
    if field not in BAR_COLUMNS:
        right += ", or leave the column out"
    bad = ~(np.abs(numbers) <= _LARGEST)
    source.reject(bad, lambda row: f"{field} is {_shown(column, row)}: {right}")
    return numbers


def _shown(column: "pd.Series[Any]", row: int) -> str:
    value = column.iloc[row]
    if not isinstance(value, (str, bytes)) and pd.isna(value):
        return "missing"
    return (repr(value) if isinstance(value, (str, bytes)) else _one_line(value))[:60]


def _listed(names: Sequence[str]) -> str:
    shown = [_one_line(name)[:40] for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in text)
