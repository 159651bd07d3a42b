"""Who gets what where the agents of an account are not those of its last start.

An agent that is new gets its budget's part of the account: first of what is nobody's, then of what
others hold beyond their own budgets, an agent that is configured no more having none. The position
of a symbol that has another owner now goes to that one, at the last price, so that what an agent is
told to hold is what its symbols hold.
"""

from collections.abc import Mapping
from decimal import Decimal

from jaxtrade.live.book import Book, cents
from jaxtrade.live.events import CashMoved, Event, PositionAdjusted

ALLOTTED = "allotted"
"""The reason of cash that moves between agents."""

_ROUNDING = 1e-9


def allotments(
    books: Mapping[str, Book],
    budgets: Mapping[str, float],
    prices: Mapping[str, float],
    *,
    now_ns: int,
) -> list[Event]:
    """Cash for the agents of `budgets`, fractions of the account, that have no book yet."""
    values = {name: book.value(prices) for name, book in books.items()}
    equity = sum(values.values())
    wanted = {name: equity * part for name, part in budgets.items() if name not in books}
    total, free = sum(wanted.values()), values.pop("", 0.0)
    if not wanted:
        return []
    events: list[Event] = []
    lacking = total - free
    for name, value in values.items():
        beyond = value - equity * budgets.get(name, 0.0)
        taken = min(beyond, lacking)
        if taken > _ROUNDING * equity:
            events += _moved(name, "", taken, now_ns)
            lacking -= taken
    is_short = lacking > _ROUNDING * equity
    share = max(total - lacking, 0.0) / total if is_short else 1.0
    for name, amount in wanted.items():
        events += _moved("", name, amount * share, now_ns)
    return events


def hand_overs(
    books: Mapping[str, Book],
    owners: Mapping[str, str],
    prices: Mapping[str, float],
    *,
    now_ns: int,
) -> list[Event]:
    """Positions that go from the agent that had a symbol to the one that has it now."""
    events: list[Event] = []
    for before, book in books.items():
        for symbol, held in book.holdings.items():
            owner = owners.get(symbol, before)
            if not before or owner == before:
                continue
            price = Decimal(repr(prices.get(symbol, held.price)))
            for agent, quantity in ((before, -held.quantity), (owner, held.quantity)):
                events.append(
                    PositionAdjusted(
                        at_ns=now_ns,
                        owner=agent,
                        symbol=symbol,
                        quantity=quantity,
                        price=price,
                        reason=f"{symbol} was {before}'s and is {owner}'s",
                    )
                )
    return events


def _moved(source: str, target: str, amount: float, now_ns: int) -> list[Event]:
    exact = cents(amount)
    return [
        CashMoved(at_ns=now_ns, agent=source, amount=-exact, reason=ALLOTTED),
        CashMoved(at_ns=now_ns, agent=target, amount=exact, reason=ALLOTTED),
    ]
