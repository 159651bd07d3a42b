"""The market: bars of one or several assets, their clock, and context columns, on the host.

Bars are relative returns (see `relative_bars`), so that float32 holds them well at any price.
Leaves are NumPy arrays: importing or loading touches no device; a jitted function takes a Market
as an argument.
"""

import dataclasses
import hashlib
import os
import pathlib

import flax.struct
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jaxtrade.barfile import (
    BAR_COLUMNS,
    PRICE_COLUMNS,
    Columns,
    Source,
    read_bars,
    read_columns,
    read_file,
)
from jaxtrade.bars import DAY_SECONDS, bar_length, bars_per_year, clock_rows, relative_bars
from jaxtrade.specs import JaxtradeError, MarketSpec, as_json

PathLike = str | os.PathLike[str]


@flax.struct.dataclass(kw_only=True)
class Market:
    """Bars of A assets at T shared stamps, with C context columns.

    bars: f32[T, A, 4], open, high, low, close over the previous close, minus one
    volume: f32[T, A], units of the file, 0 = none known
    context: f32[T, C], raw values known at the end of the bar; `spread` is over the close
    clock: f32[T, 3], `specs.CLOCK_FIELDS`, of the bar's start
    day: i32[T], days since 1970-01-01 UTC of the bar's start
    second: i32[T], seconds within that day

    Invariant: close[t] = base_price times the product of (1 + bars[s, :, 3]) over s <= t.

    Usage:
        market = Market.from_csv("SPY_1d.csv.gz").join("VIX_1d.csv.gz", name="vix")
        spans = split(market.num_bars, first=64, embargo=64)
        training = market.rows(spans.train.first, spans.train.last)
    """

    bars: NDArray[np.float32]
    volume: NDArray[np.float32]
    context: NDArray[np.float32]
    clock: NDArray[np.float32]
    day: NDArray[np.int32]
    second: NDArray[np.int32]
    spec: MarketSpec = flax.struct.field(pytree_node=False)

    @classmethod
    def load(
        cls, path: PathLike, *, symbol: str | None = None, bar_seconds: int | None = None
    ) -> "Market":
        """A market of one asset from a .csv, .csv.gz, .parquet or .pq file of bars.

        Args:
            path: columns timestamp (UTC start of the bar), open, high, low, close, volume in any
                order and case; other numeric columns become context, in file order.
            symbol: by default the file's name up to the first "_" or ".".
            bar_seconds: length of a bar; by default the most frequent step.

        Raises:
            JaxtradeError: not a readable file of bars; see `bars.read_bars`.
        """
        frame, source = read_file(pathlib.Path(path))
        if symbol is None:
            symbol = source.name.split(".")[0].split("_")[0]
        return _from_columns(read_bars(frame, source), symbol, bar_seconds)

    @classmethod
    def from_csv(
        cls, path: PathLike, *, symbol: str | None = None, bar_seconds: int | None = None
    ) -> "Market":
        """`load` for .csv and .csv.gz only."""
        _require_suffix(path, (".csv", ".csv.gz"))
        return cls.load(path, symbol=symbol, bar_seconds=bar_seconds)

    @classmethod
    def from_parquet(
        cls, path: PathLike, *, symbol: str | None = None, bar_seconds: int | None = None
    ) -> "Market":
        """`load` for .parquet and .pq only."""
        _require_suffix(path, (".parquet", ".pq"))
        return cls.load(path, symbol=symbol, bar_seconds=bar_seconds)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        symbol: str = "",
        source: str = "frame",
        bar_seconds: int | None = None,
    ) -> "Market":
        """A market of one asset from a frame with the columns of `load`, or a time index.

        Raises:
            JaxtradeError: bad rows or columns, named after `source`; see `bars.read_bars`.
        """
        return _from_columns(read_bars(frame, Source(name=source)), symbol, bar_seconds)

    @property
    def num_bars(self) -> int:
        """T."""
        return self.bars.shape[0]

    @property
    def num_assets(self) -> int:
        """A."""
        return self.bars.shape[1]

    @property
    def timestamps(self) -> NDArray[np.datetime64]:
        """datetime64[s][T], UTC start of each bar."""
        seconds = self.day.astype(np.int64) * DAY_SECONDS + self.second
        return seconds.astype("datetime64[s]")

    def close_prices(self) -> NDArray[np.float64]:
        """f64[T, A], quote currency."""
        growth = np.cumprod(1 + self.bars[:, :, 3].astype(np.float64), axis=0)
        return np.asarray(self.spec.base_price) * growth

    def open_prices(self) -> NDArray[np.float64]:
        """f64[T, A], quote currency."""
        return self._prices(0)

    def previous_closes(self) -> NDArray[np.float64]:
        """The close before each bar, f64[T, A], quote currency."""
        base = np.asarray(self.spec.base_price, np.float64)[None]
        return np.concatenate([base, self.close_prices()[:-1]])

    def _prices(self, field: int) -> NDArray[np.float64]:
        return self.previous_closes() * (1 + self.bars[:, :, field].astype(np.float64))

    def fingerprint(self) -> str:
        """Sixteen hex digits over every array and the spec; where it came from does not count."""
        digest = hashlib.sha256(as_json(dataclasses.replace(self.spec, source="")).encode())
        for leaf in (self.bars, self.volume, self.context, self.clock, self.day, self.second):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def rows(self, first: int, last: int) -> "Market":
        """The rows first to last, both included, with the prices and the clock they have here.

        `base_price` becomes the close before the first row.

        Raises:
            JaxtradeError: not 0 <= first <= last < T.
        """
        if not 0 <= first <= last < self.num_bars:
            raise JaxtradeError(
                f"{self.name()}: no rows {first} to {last}: give 0 <= first <= last "
                f"< {self.num_bars}"
            )
        spec = self.spec
        if first:
            before = self.close_prices()[first - 1]
            spec = dataclasses.replace(spec, base_price=tuple(before.tolist()))
        part = slice(first, last + 1)
        return dataclasses.replace(
            self,
            bars=self.bars[part],
            volume=self.volume[part],
            context=self.context[part],
            clock=self.clock[part],
            day=self.day[part],
            second=self.second[part],
            spec=spec,
        )

    def join(
        self,
        other: "Market | PathLike | pd.DataFrame",
        *,
        name: str,
        columns: tuple[str, ...] = ("close",),
        max_age_days: float = 10,
        bar_seconds: int | None = None,
    ) -> "Market":
        """This market with columns of another file as context, without looking ahead.

        A bar, here and there, is known at its end: its start plus `bar_seconds`. A row sees the
        other's last row known when it is itself known. So a daily bar sees the other's daily bar
        of the same day, an hourly bar that of the day before.

        Args:
            other: a market of one asset, or a file or frame with stamps and the columns named.
            name: the context column is `name` for columns=("close",), else `{name}_{column}`.
            columns: names in `other`, in any case; the values are taken as they are.
            max_age_days: how much earlier the value seen may have become known.
            bar_seconds: the other's length of a bar; by default its most frequent step.

        Raises:
            JaxtradeError: a bar that sees no row or one too old; a column missing in `other` or
                here already; a bad row in `other`.
        """
        wanted = tuple(column.lower() for column in columns)
        table = _columns_of(other, wanted)
        if bar_seconds is not None:
            length = bar_seconds
        elif isinstance(other, Market):
            length = other.spec.bar_seconds
        else:
            length = bar_length(table.timestamps)
        if length <= 0:
            raise JaxtradeError(f"{table.source.name}: bar_seconds is {length}: give 1 or more")
        prefix = name.lower()
        names = (prefix,) if wanted == ("close",) else tuple(f"{prefix}_{c}" for c in wanted)
        doubled = sorted(set(names) & set(self.spec.context))
        if doubled or not names:
            raise JaxtradeError(
                f"{self.name()}: join of columns {list(wanted)} as {name!r}: give at least one "
                f"column, and a name that is not there (found {', '.join(self.spec.context)})"
            )
        known_here = self.timestamps.astype(np.int64) + self.spec.bar_seconds
        known_there = table.timestamps.astype(np.int64) + length
        seen = np.searchsorted(known_there, known_here, side="right") - 1
        age = known_here - known_there[np.maximum(seen, 0)]
        where = f"{table.source.name} ({table.timestamps[0]}Z .. {table.timestamps[-1]}Z)"
        unseen = int((seen < 0).sum())
        start = f"start at row {unseen + 1}, or " if unseen < self.num_bars else ""
        self._reject(
            seen < 0, f"nothing of {where} is known yet: {start}join a file that begins earlier"
        )
        self._reject(
            age > max_age_days * DAY_SECONDS,
            f"the newest known of {where} is over {max_age_days:g} days old: "
            "join a file that covers it, or raise max_age_days",
        )

        added = np.stack([table.values[column][seen] for column in wanted], axis=-1)
        return dataclasses.replace(
            self,
            context=np.concatenate([self.context, added.astype(np.float32)], axis=1),
            spec=dataclasses.replace(self.spec, context=self.spec.context + names),
        )

    def _reject(self, bad: NDArray[np.bool_], problem: str) -> None:
        Source(name=self.name()).reject(bad, lambda row: f"{self.timestamps[row]}Z: {problem}")

    def describe(self) -> str:
        """One line: symbols, number and length of bars, dates, bars a year."""
        symbols = ", ".join(self.spec.symbols) or self.name()
        unit = "D" if self.spec.bar_seconds % DAY_SECONDS == 0 else "m"
        first, last = (
            str(stamp.astype(f"datetime64[{unit}]")) for stamp in self.timestamps[[0, -1]]
        )
        return (
            f"{symbols} {self.num_bars:,} bars of {_duration(self.spec.bar_seconds)}, "
            f"{first} .. {last}, {self.spec.bars_per_year:,.1f} bars a year"
        )

    def name(self) -> str:
        """The file or generator it comes from, for messages."""
        return self.spec.source or "market"


def _from_columns(table: Columns, symbol: str, bar_seconds: int | None) -> Market:
    values, stamps = table.values, table.timestamps
    length = bar_length(stamps) if bar_seconds is None else bar_seconds
    if length <= 0:
        raise JaxtradeError(f"{table.source.name}: bar_seconds is {length}: give 1 or more")
    prices = np.stack([values[name] for name in PRICE_COLUMNS], axis=-1)
    bars = relative_bars(prices, np.concatenate([prices[:1, 0], prices[:-1, 3]]))
    table.source.reject(
        np.any(~np.isfinite(bars) | (bars <= -1), axis=-1),
        lambda row: (
            f"close goes from {prices[max(row - 1, 0), 3]:g} to {prices[row, 3]:g}: "
            "give prices whose steps float32 returns can hold"
        ),
    )
    names = tuple(name for name in values if name not in BAR_COLUMNS)
    context = np.zeros((len(stamps), len(names)), np.float64)
    for column, name in enumerate(names):
        context[:, column] = values[name] / (values["close"] if name == "spread" else 1.0)
    seconds = stamps.astype(np.int64)
    return Market(
        bars=bars[:, None],
        volume=values["volume"].astype(np.float32)[:, None],
        context=context.astype(np.float32),
        clock=clock_rows(stamps, bar_seconds=length),
        day=(seconds // DAY_SECONDS).astype(np.int32),
        second=(seconds % DAY_SECONDS).astype(np.int32),
        spec=MarketSpec(
            symbols=(symbol,),
            context=names,
            bar_seconds=length,
            bars_per_year=bars_per_year(stamps, bar_seconds=length),
            base_price=(float(prices[0, 0]),),
            source=table.source.name,
        ),
    )


def _columns_of(other: Market | PathLike | pd.DataFrame, wanted: tuple[str, ...]) -> Columns:
    """The wanted columns of what a market joins."""
    if isinstance(other, pd.DataFrame):
        return read_columns(other, Source(name="frame"), only=wanted)
    if not isinstance(other, Market):
        frame, source = read_file(pathlib.Path(other))
        return read_columns(frame, source, only=wanted)
    if other.num_assets != 1:
        raise JaxtradeError(f"{other.name()}: holds {other.num_assets} assets: join one at a time")
    values = {name: other._prices(field)[:, 0] for field, name in enumerate(PRICE_COLUMNS)}
    values["volume"] = other.volume[:, 0].astype(np.float64)
    for column, name in enumerate(other.spec.context):
        values[name] = other.context[:, column].astype(np.float64)
    missing = [name for name in wanted if name not in values]
    if missing:
        raise JaxtradeError(
            f"{other.name()}: no column {', '.join(missing)} (found {', '.join(values)})"
        )
    return Columns(source=Source(name=other.name()), timestamps=other.timestamps, values=values)


def _require_suffix(path: PathLike, suffixes: tuple[str, ...]) -> None:
    name = pathlib.Path(path).name
    if not name.lower().endswith(suffixes):
        raise JaxtradeError(f"{name}: unknown suffix: give {' or '.join(suffixes)}")


def _duration(seconds: int) -> str:
    units = ((DAY_SECONDS, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((size, unit) for size, unit in units if seconds % size == 0)
    return f"{seconds // size} {unit}{'s' if seconds != size else ''}"
