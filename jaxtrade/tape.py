"""The tape: all that a step needs to know of a bar, one row of numbers per bar and asset.

One row is gathered per step, so that what the rules do not use costs no memory traffic: a column
is on the tape only where a rule reads it.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Maybe = Any
"""A `jax.Array`, or None where a rule or column is not there: then it is not in the program."""

PRICES = ("open", "high", "low", "close")
CALENDAR = ("years", "new_day")
COLUMNS = (
    *PRICES,
    *CALENDAR,
    "half_spread_open",
    "half_spread_close",
    "dividend",
    "funding",
    "nights",
    "price",
    "volume_value",
    "average_value",
    "volatility",
    "session_end",
)
"""Every column there can be, in the order of a row; the first six always are."""


@flax.struct.dataclass(kw_only=True)
class Bar:
    """One bar of A assets; each f32[A] unless said, None where the tape has no such column.

    open, high, low, close: over the close before, minus one; years: f32[], since the bar before;
    new_day: f32[], 1 on the first bar of a UTC day;
    half_spread_open, half_spread_close: half of bid to ask, over the middle, on top of the fixed
    one; dividend: paid to who held at the close before, over that close; funding: paid by longs to
    shorts in this bar, of the position's value; nights: rollovers charged in this bar;
    price: the close before, quote currency; volume_value: what traded in this bar, average_value:
    a bar's mean as known before it, quote currency; volatility: deviation of a bar's return as
    known before it; session_end: f32[], 1 where positions are to be flat after this bar.
    """

    open: jax.Array
    high: jax.Array
    low: jax.Array
    close: jax.Array
    years: jax.Array
    new_day: jax.Array
    half_spread_open: Maybe = None
    half_spread_close: Maybe = None
    dividend: Maybe = None
    funding: Maybe = None
    nights: Maybe = None
    price: Maybe = None
    volume_value: Maybe = None
    average_value: Maybe = None
    volatility: Maybe = None
    session_end: Maybe = None


@flax.struct.dataclass(kw_only=True)
class Tape:
    """rows: f32[T, A, K], the columns `names` of T bars of A assets, then zeros: a row of 8 or 16
    numbers lies in one line of the cache.
    """

    rows: jax.Array
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @property
    def num_assets(self) -> int:
        """A."""
        return self.rows.shape[1]

    def bar(self, index: jax.Array) -> Bar:
        """The bar at a row 0 <= index < T, i32[]."""
        shape = (1, self.num_assets, len(self.names))
        row = jax.lax.dynamic_slice(self.rows, (index, jnp.int32(0), jnp.int32(0)), shape)
        return bar_of(row[0], self.names)


def bar_of(row: jax.Array, names: tuple[str, ...]) -> Bar:
    """The bar of a row f32[A, K] with the columns `names`."""
    shared = (*CALENDAR, "session_end")
    columns = {
        name: row[0, column] if name in shared else row[:, column]
        for column, name in enumerate(names)
    }
    return Bar(**columns)


def make_tape(columns: dict[str, NDArray[np.floating]], num_assets: int) -> Tape:
    """A tape of columns, each [T], shared by all assets, or [T, A]."""
    names = tuple(name for name in COLUMNS if name in columns)
    parts = [
        np.broadcast_to(array if array.ndim == 2 else array[:, None], (len(array), num_assets))
        for array in (columns[name] for name in names)
    ]
    rows = np.stack(parts, axis=-1).astype(np.float32)
    padded = np.pad(rows, ((0, 0), (0, 0), (0, -len(names) % 8)))
    return Tape(rows=jnp.asarray(padded), names=names)
