"""What a policy did over a span: the record of a backtest, its round trips and its figures."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jaxtrade import metrics
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import write_atomic

Array = NDArray[np.float64]

TRADES_SCHEMA = pa.schema(
    [
        ("policy", pa.string()),
        ("entry_time", pa.timestamp("ms", tz="UTC")),
        ("exit_time", pa.timestamp("ms", tz="UTC")),
        ("side", pa.string()),
        ("entry_price", pa.float64()),
        ("exit_price", pa.float64()),
        ("bars", pa.int64()),
        ("exposure", pa.float64()),
        ("return", pa.float64()),
        ("costs", pa.float64()),
        ("open", pa.bool_()),
    ]
)
"""Columns of `trades.parquet`; all but `policy` are those of `Backtest.trips`.

Times are whole seconds; the file says milliseconds as Parquet knows no coarser unit.
"""

_FACTORS = ("gap_growth", "cost_growth", "bar_growth")
_FLOATS = (
    *_FACTORS,
    "weights_before",
    "exposure",
    "turnover",
    "interest",
    "open_price",
    "close_price",
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Backtest:
    """What one policy did over one span of one market, step by step.

    Step k trades at the open of a bar and is marked at its close; all arrays are [T], T >= 1.
    Invariant: equity[k + 1] = equity[k] * gap_growth[k] * cost_growth[k] * bar_growth[k].

    Attributes:
        name: the policy: "agent", "buy and hold", ...
        span: the part of the market: "test", "validation", "all".
        timestamps: datetime64[T], UTC, start of the bar in which step k traded and was marked.
        gap_growth: f64[T], equity factor of the old position from the last close to the open.
        cost_growth: f64[T], equity factor of trading costs paid at the open, at most 1.
        bar_growth: f64[T], equity factor of the new position from open to close, interest included.
        weights_before: f64[T], signed position value / equity just before trading at the open.
        exposure: f64[T], signed position value / equity just after trading at the open.
        turnover: f64[T], traded value / equity.
        interest: f64[T], fraction of equity paid as interest in the bar; below 0 is received.
        action: i32[T] or f32[T], what the policy chose: an index, or an exposure.
        open_price: f64[T], quote currency.
        close_price: f64[T], quote currency.
        exit_price: f64[T], quote currency, at which a stop, a target or a liquidation ended the
            position inside the bar; NaN where none did. None: nowhere.
        risk_free: f64[T], what an account that holds nothing earns in the bar; None: nothing.
        bars_per_year: annualises the figures.
        ruined: the account was lost and its position liquidated in the last bar it held one.

    Raises:
        JaxtradeError: arrays of unequal length, no bars, a number that is not finite, or a growth
            factor that is not above 0 (ruin has a small terminal growth).
    """

    name: str
    span: str
    timestamps: NDArray[np.datetime64]
    gap_growth: Array
    cost_growth: Array
    bar_growth: Array
    weights_before: Array
    exposure: Array
    turnover: Array
    interest: Array
    action: NDArray[np.int32] | NDArray[np.float32]
    open_price: Array
    close_price: Array
    bars_per_year: float
    ruined: bool = False
    exit_price: Array | None = None
    risk_free: Array | None = None

    def __post_init__(self) -> None:
        T = len(self.timestamps)
        where = f"backtest {self.name!r}"
        if T == 0:
            raise JaxtradeError(f"{where} has no bars: it needs at least one")
        for name in (*_FLOATS, "action"):
            shape = np.shape(getattr(self, name))
            if shape != (T,):
                raise JaxtradeError(f"{where}: {name} has shape {shape}, timestamps have ({T},)")
        for name in _FLOATS:
            values = getattr(self, name)
            wrong = ~np.isfinite(values)
            if name in _FACTORS:
                wrong |= values <= 0
            if wrong.any():
                k = int(np.argmax(wrong))
                right = "finite and above 0" if name in _FACTORS else "finite"
                raise JaxtradeError(f"{where}: {name}[{k}] is {values[k]}: it must be {right}")

    @property
    def growth(self) -> Array:
        """Equity factor of each step, f64[T]."""
        return self.gap_growth * self.cost_growth * self.bar_growth

    @property
    def returns(self) -> Array:
        """Simple return of each step, f64[T]."""
        return self.growth - 1.0

    @property
    def excess(self) -> Array:
        """Returns beyond what an account that holds nothing earns, f64[T]."""
        return self.returns if self.risk_free is None else self.returns - self.risk_free

    @property
    def sharpe(self) -> float:
        """The Sharpe ratio of the excess returns."""
        return metrics.sharpe(self.excess, self.bars_per_year)

    @property
    def equity(self) -> Array:
        """Equity, f64[T + 1]: 1.0 at the start, then after each step."""
        with np.errstate(over="ignore"):
            return np.concatenate([np.ones(1), np.cumprod(self.growth)])

    @property
    def costs(self) -> Array:
        """Fraction of equity paid in each step for trading and as interest, f64[T]."""
        return 1.0 - self.cost_growth + self.interest

    def trips(self) -> pd.DataFrame:
        """Round trips in order of entry; columns as in `TRADES_SCHEMA` without `policy`.

        A round trip is a maximal run of bars whose exposure after trading keeps one non-zero
        sign, unless it ended inside a bar. It earns the bar growth of its bars, the gap growth of
        its later bars and of the bar that closes it, and the costs of its bars and of the closing
        bar; on a flip the log cost is shared between the old and the new position as
        |weights_before| to |exposure|. So the product of (1 + return) over the trips, times
        `flat_growth`, is the total growth.

        `return` is of equity, from just before the entry's cost to just after the exit's cost, of
        an open trip to the last close. `costs` (a sum of fractions of equity, interest included)
        is shared likewise. `open` is True for a trip still held at the end; after ruin there is
        none, as the position was liquidated.
        """
        trip, old, _ = self._ownership()
        opens = np.flatnonzero((trip > 0) & (trip != old))
        count = len(opens)
        bars = np.bincount(trip, minlength=count + 1)[1:]
        last = len(self.timestamps) - 1
        at_end = opens + bars > last
        closes = np.minimum(opens + bars, last)
        inside = self._exits()[opens + bars - 1]
        is_inside = np.isfinite(inside)
        closes = np.where(is_inside, opens + bars - 1, closes)
        at_end &= ~is_inside
        at_open_or_end = np.where(at_end, self.close_price[closes], self.open_price[closes])
        log_growth, costs = self._attributed()
        times = pd.DatetimeIndex(self.timestamps.astype("datetime64[s]")).tz_localize("UTC")
        long = self.exposure[opens] > 0
        return pd.DataFrame(
            {
                "entry_time": times[opens],
                "exit_time": times[closes],
                "side": pd.array(np.where(long, "long", "short"), dtype="str"),
                "entry_price": self.open_price[opens],
                "exit_price": np.where(is_inside, inside, at_open_or_end),
                "bars": bars.astype(np.int64),
                "exposure": self.exposure[opens],
                "return": np.expm1(log_growth[1:]),
                "costs": costs[1:],
                "open": at_end & (not self.ruined),
            }
        )

    @property
    def flat_growth(self) -> float:
        """Equity factor of all that belongs to no round trip; 1 where being flat earns nothing."""
        return float(np.exp(self._attributed()[0][0]))

    def metrics(self) -> dict[str, float]:
        """The figures of `jaxtrade.metrics.summary`; costs include the interest."""
        return metrics.summary(
            self.returns,
            bars_per_year=self.bars_per_year,
            trip_returns=self.trips()["return"].to_numpy(),
            turnover=self.turnover,
            exposure=self.exposure,
            costs=self.costs,
            risk_free=0.0 if self.risk_free is None else self.risk_free,
        )

    def _exits(self) -> Array:
        """Prices of exits inside a bar, NaN where there was none."""
        none = np.full(len(self.timestamps), np.nan)
        return none if self.exit_price is None else self.exit_price

    def _ownership(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """For each bar, the trip held after trading and the one held before (1, 2, ...; 0 is none).

        The third array is the share of the bar's trading costs that the one before bears.
        """
        sign = np.sign(self.exposure)
        has_ended = np.concatenate([[False], np.isfinite(self._exits())[:-1]])
        starts = (sign != 0) & ((sign != np.concatenate([np.zeros(1), sign[:-1]])) | has_ended)
        trip = np.where(sign != 0, np.cumsum(starts), 0)
        old = np.where(has_ended, 0, np.concatenate([np.zeros(1, np.int64), trip[:-1]]))
        before, after = np.abs(self.weights_before), np.abs(self.exposure)
        flips = (trip != old) & (trip > 0) & (old > 0)
        shared = before / np.where(flips, before + after, 1.0)
        share = np.where(flips, shared, np.where(trip == 0, 1.0, 0.0))
        return trip, old, share

    def _attributed(self) -> tuple[Array, Array]:
        """Log growth and costs of each trip, f64[trips + 1]; element 0 is of no trip."""
        trip, old, share = self._ownership()
        size = int(trip.max()) + 1

        def gathered(owner: NDArray[np.int64], values: Array) -> Array:
            return np.bincount(owner, weights=values, minlength=size).astype(np.float64, copy=False)

        log_cost = np.log(self.cost_growth)
        log_growth = gathered(old, np.log(self.gap_growth) + share * log_cost)
        log_growth += gathered(trip, np.log(self.bar_growth) + (1.0 - share) * log_cost)
        paid = 1.0 - self.cost_growth
        costs = gathered(old, share * paid)
        costs += gathered(trip, (1.0 - share) * paid + self.interest)
        return log_growth, costs


def write_trades(path: str | Path, results: Iterable[Backtest]) -> None:
    """Write the round trips of all results to one Parquet file with the columns `TRADES_SCHEMA`.

    Raises:
        JaxtradeError: the file cannot be written; what was there is kept.
    """
    tables = [TRADES_SCHEMA.empty_table()]
    for result in results:
        trips = result.trips()
        trips.insert(0, "policy", result.name)
        tables.append(pa.Table.from_pandas(trips, schema=TRADES_SCHEMA, preserve_index=False))
    table = pa.concat_tables([each.replace_schema_metadata(None) for each in tables])
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_atomic(path, buffer.getvalue().to_pybytes())
