"""Several venues as one: an account that trades the markets of several runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxtrade.bars import DAY_SECONDS, clock_rows
from jaxtrade.costs import Costs
from jaxtrade.live.brokers.paper_venue import Venue
from jaxtrade.margin import Margin
from jaxtrade.rules import Rules
from jaxtrade.specs import JaxtradeError
from jaxtrade.tape import CALENDAR, make_tape

F64 = NDArray[np.float64]

Row = tuple[Venue, NDArray[np.int64], NDArray[np.bool_]]
"""A venue; at each joint row its newest own one, and whether that is new."""

STANDING = ("half_spread_open", "half_spread_close", "price", "average_value", "volatility")
"""Columns that stay what they were where a market has no bar; the others are 0 there."""


def joined(venues: Sequence[Venue]) -> Venue:
    """The rows at which any of the venues has a bar, from where all have begun to the first end.

    Rates and lots are each market's own; the deposit is the sum of all. One venue is itself.

    Raises:
        JaxtradeError: a symbol that is in two of them, bars of unequal length, rules that differ in
            how orders are filled, or no rows in common.
    """
    first = venues[0]
    if len(venues) == 1:
        return first
    symbols = tuple(symbol for each in venues for symbol in each.symbols)
    doubled = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
    if doubled:
        raise JaxtradeError(f"{', '.join(doubled)} is in two of the runs: a symbol has one owner")
    lengths = sorted({each.bar_seconds for each in venues})
    if len(lengths) > 1:
        raise JaxtradeError(f"bars of {lengths} s: give runs with bars of one length")
    starts = np.unique(np.concatenate([each.starts_s for each in venues]))
    seen = [np.searchsorted(each.starts_s, starts, side="right") - 1 for each in venues]
    is_there = [
        (row >= 0) & (each.starts_s[np.maximum(row, 0)] == starts)
        for each, row in zip(venues, seen, strict=True)
    ]
    begin = max(int(each.starts_s[each.first]) for each in venues)
    end = min(int(each.starts_s[each.last]) for each in venues)
    if begin >= end:
        raise JaxtradeError("the runs have no rows to trade in common: give data that overlap")
    rows: list[Row] = list(zip(venues, seen, is_there, strict=True))
    columns = [_columns(each, row, there) for each, row, there in rows]
    names = {name for each in columns for name in each}
    table: dict[str, NDArray[np.floating]] = {name: _beside(name, columns, rows) for name in names}
    clock = clock_rows(starts, bar_seconds=first.bar_seconds)
    days = starts // DAY_SECONDS
    table["years"] = clock[:, 2].astype(np.float64)
    table["new_day"] = (np.diff(days, prepend=days[:1] - 1) != 0).astype(np.float64)
    return Venue(
        symbols=symbols,
        tape=make_tape(table, len(symbols)),
        rules=_rules([each.rules for each in venues], [len(each.symbols) for each in venues]),
        prices=np.concatenate([_prices(*each) for each in rows], axis=1),
        volume=np.concatenate([v.volume[r] * there[:, None] for v, r, there in rows], axis=1),
        is_there=np.concatenate([v.is_there[r] & there[:, None] for v, r, there in rows], axis=1),
        context=tuple((names, values[r]) for v, r, _ in rows for names, values in v.context),
        starts_s=starts,
        bar_seconds=first.bar_seconds,
        first=int(np.searchsorted(starts, begin)),
        last=int(np.searchsorted(starts, end)),
        steps=tuple(one.quantity_step for each in venues for one in each.instruments()),
    )


def _columns(venue: Venue, row: NDArray[np.int64], there: NDArray[np.bool_]) -> dict[str, F64]:
    """The columns of a venue's tape at other rows, f64[T, A]."""
    table = np.asarray(venue.tape.rows, np.float64)[row]
    return {
        name: table[:, :, k] if name in STANDING else table[:, :, k] * there[:, None]
        for k, name in enumerate(venue.tape.names)
        if name not in CALENDAR
    }


def _beside(name: str, columns: list[dict[str, F64]], rows: Sequence[Row]) -> F64:
    """A column of all venues; prices, and 0 for all else, in those that have none."""
    if name == "session_end":
        raise JaxtradeError("runs that are flat at the end of a session trade alone")
    parts = []
    for found, (venue, row, _) in zip(columns, rows, strict=True):
        if name in found:
            parts.append(found[name])
        elif name == "price":
            closes = venue.prices[:, :, 3]
            parts.append(np.concatenate([venue.prices[:1, :, 0], closes[:-1]])[row])
        else:
            parts.append(np.zeros((len(row), len(venue.symbols))))
    return np.concatenate(parts, axis=1)


def _prices(venue: Venue, row: NDArray[np.int64], there: NDArray[np.bool_]) -> F64:
    """f64[T, A, 4]; at rows without a bar all are the last close."""
    prices = venue.prices[row]
    return np.where(there[:, None, None], prices, prices[:, :, 3:])


def _rules(several: Sequence[Rules], counts: Sequence[int]) -> Rules:
    """One set of rules with the rates of each asset."""
    same = {(each.fill, each.latency) for each in several}
    if len(same) > 1:
        raise JaxtradeError(f"rules fill orders in different ways ({same}): give runs of one way")
    for name in ("delay", "participation", "tick_size"):
        given = {str(getattr(each, name)) for each in several}
        if len(given) > 1:
            raise JaxtradeError(f"rules have a {name} of {', '.join(given)}: give runs of one")

    def stacked(values: Sequence[Any], missing: Sequence[Any]) -> Any:
        if all(value is None for value in values):
            return None
        parts = [m if v is None else v for v, m in zip(values, missing, strict=True)]
        whole = [np.broadcast_to(p, n) for p, n in zip(parts, counts, strict=True)]
        return jnp.asarray(np.concatenate(whole), jnp.float32)

    zeros = [0.0] * len(several)
    costs = {}
    for field in dataclasses.fields(Costs):
        name = field.name
        missing = [each.costs.commission_rate for each in several]
        values = [getattr(each.costs, name) for each in several]
        costs[name] = stacked(values, missing if name == "maker_rate" else zeros)
    # Interest is on the cash of the whole account: the mean of what each pays or earns.
    for name in ("margin_rate", "idle_rate"):
        costs[name] = None if costs[name] is None else costs[name].mean()
    margin = None
    if any(each.margin is not None for each in several):
        fields = [field.name for field in dataclasses.fields(Margin)]
        parts = {name: [getattr(each.margin, name, None) for each in several] for name in fields}
        margin = Margin(**{name: stacked(parts[name], zeros) for name in fields})
    return dataclasses.replace(
        several[0],
        costs=Costs(**costs),
        deposit=jnp.float32(sum(float(each.deposit) for each in several)),
        margin=margin,
        lot_size=None,
    )
