"""The three fill rules: in which order a bar's gap, trade and way to the close come.

What they do to an account is in `ledger.step`, their parts in `position`.
"""

from collections.abc import Callable
from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade import brackets
from jaxtrade.brackets import LIQUIDATION, NO_EXIT, Levels
from jaxtrade.orders import Order
from jaxtrade.position import Book, Fill, Hold, Scene, hold, trade, wipe_out, with_dividends
from jaxtrade.tape import Maybe


@flax.struct.dataclass(kw_only=True)
class Way:
    """How a bar went. before: the book just before the trade; levels: at the close, still over the
    last close; opened: f32[], equity at the open; is_wiped: bool[], all was liquidated there.
    """

    before: Book
    fill: Fill
    hold: Hold
    book: Book
    levels: Levels | None
    opened: jax.Array
    is_wiped: Maybe


def next_open(book: Book, levels: Levels | None, order: Order, scene: Scene) -> Way:
    """The gap, the trade at the open or later in the bar, the way to the close."""
    rules, bar = scene.rules, scene.bar
    side = jnp.sign(book.held)
    book = with_dividends(book, scene).marked(bar.open)
    opened = book.equity
    book, is_wiped = wipe_out(book, scene)
    if is_wiped is not None:
        order = replace(order, quantity=jnp.where(is_wiped, 0.0, order.quantity))
    if rules.delay is not None:
        book = book.marked(bar.open + rules.delay * (bar.close - bar.open))
    fill = trade(book, order, scene)
    scene = replace(scene, bar=fill.bar)
    is_new = jnp.sign(fill.book.held) != side
    levels = _attached(levels, fill, is_new, scene)
    start = jnp.where(is_new, fill.book.price, fill.bar.open)
    held = hold(fill.book, levels, start, fill.is_inside, scene)
    if levels is not None:
        levels = brackets.seen(levels, jnp.sign(fill.book.held), fill.is_inside, fill.bar)
    return Way(
        before=book,
        fill=fill,
        hold=held,
        book=held.book,
        levels=levels,
        opened=opened,
        is_wiped=is_wiped,
    )


def next_close(book: Book, levels: Levels | None, order: Order, scene: Scene) -> Way:
    """The gap and the way to the close, the trade there; not of what ended on the way."""
    bar = scene.bar
    side = jnp.sign(book.held)
    book = with_dividends(book, scene)
    opened = book.marked(bar.open).equity
    held = hold(book, levels, bar.open, None, scene)
    if levels is not None:
        levels = brackets.seen(levels, side, None, bar)
    is_out = (held.code != NO_EXIT) | (held.code == LIQUIDATION).any()
    order = replace(order, quantity=jnp.where(is_out, 0.0, order.quantity))
    before = replace(held.book, price=bar.close)  # an exit has its price, what trades the close
    fill = trade(before, order, scene, column="half_spread_close")
    is_new = jnp.sign(fill.book.held) != side
    book = fill.book
    if order.limit is not None or order.stop is not None:  # filled at its own price on the way
        book = book.marked(fill.bar.close)
    return Way(
        before=before,
        fill=fill,
        hold=held,
        book=book,
        levels=_attached(levels, fill, is_new, scene),
        opened=opened,
        is_wiped=None,
    )


def close(book: Book, levels: Levels | None, order: Order, scene: Scene) -> Way:
    """The trade at the last close, the gap, the way to the close."""
    side = jnp.sign(book.held)
    fill = trade(book, order, scene)
    scene = replace(scene, bar=fill.bar)
    levels = _attached(levels, fill, jnp.sign(fill.book.held) != side, scene)
    after = with_dividends(fill.book, scene)
    opened = after.marked(fill.bar.open).equity
    held = hold(after, levels, fill.bar.open, None, scene)
    if levels is not None:
        levels = brackets.seen(levels, jnp.sign(after.held), None, fill.bar)
    return Way(
        before=book,
        fill=fill,
        hold=held,
        book=held.book,
        levels=levels,
        opened=opened,
        is_wiped=None,
    )


def _attached(levels: Levels | None, fill: Fill, is_new: jax.Array, scene: Scene) -> Levels | None:
    """The levels of the brackets after a trade."""
    rules, side = scene.rules, jnp.sign(fill.book.held)
    if rules.brackets is None or levels is None:
        return None
    return brackets.attach(
        rules.brackets, levels, side, fill.price, is_new, scene.bar, rules.tick_size
    )


FILL_RULES: dict[str, Callable[[Book, Levels | None, Order, Scene], Way]] = {
    "next_open": next_open,
    "next_close": next_close,
    "close": close,
}
"""The rule by name; see `ledger.step`."""
