"""Executions: what is told of one, which tale of it counts, what it has cost; exact decimals."""

from decimal import Context, Decimal
from typing import Any, NamedTuple

from jaxtrade.live.events import FeeReported, OrderFilled, Side

EXACT = Context(prec=400)
"""Wide enough that no sum or product of prices, quantities and fees is ever rounded; Python's own
context would keep 28 digits, also of a negation.
"""

NONE = Decimal(0)


class Execution(NamedTuple):
    """What is known of one execution; agent: in whose book it is, where no order says so."""

    fill: OrderFilled | None = None
    reported: FeeReported | None = None
    agent: str = ""

    @property
    def fee(self) -> Decimal:
        """What it has cost."""
        return effective_fee(self.fill, self.reported)

    @property
    def at_ns(self) -> int:
        """UTC of the newest that was told of it."""
        return max(told.at_ns for told in (self.fill, self.reported) if told is not None)


UNHEARD = Execution()


def signed(fill: OrderFilled) -> Decimal:
    """Units that an execution adds to the position."""
    return fill.quantity if fill.side is Side.BUY else fill.quantity.copy_negate()


def is_newer(known: OrderFilled | FeeReported | None, event: OrderFilled | FeeReported) -> bool:
    """Whether what is told of an execution replaces what is known: by its revision; of different
    accounts of the same revision one and the same is chosen, whichever came first.
    """
    return known is None or _weight(event) > _weight(known)


def is_sane(event: OrderFilled | FeeReported) -> bool:
    """Whether the numbers of an execution are some that can be booked."""
    if isinstance(event, FeeReported):
        return event.fee.is_finite()
    is_finite = event.quantity.is_finite() and event.price.is_finite() and event.fee.is_finite()
    return is_finite and event.quantity >= 0


def effective_fee(fill: OrderFilled | None, reported: FeeReported | None) -> Decimal:
    """The fee of an execution, told with the fill or apart from it, or with its correction."""
    if fill is None:
        return NONE
    if reported is None:
        return fill.fee
    is_superseded = reported.revision < fill.revision and (fill.fee or not fill.quantity)
    return fill.fee if is_superseded else reported.fee


def _weight(event: OrderFilled | FeeReported) -> tuple[Any, ...]:
    if isinstance(event, FeeReported):
        return event.revision, event.fee, -event.at_ns, event.cid
    return (
        event.revision,
        event.quantity,
        event.price,
        event.fee,
        -event.at_ns,
        event.side,
        event.symbol,
        event.cid,
        event.middle,
    )
