"""What may go wrong between an engine and a broker, on demand and repeatable.

A number says how often, from now on, something is to happen; a rate or a switch stays until it is
changed. `Line` is the way of events from the broker to its reader, with all that happens on it.
"""

import dataclasses
import heapq
import math
import random
from collections import deque

from jaxtrade.live.events import (
    Bar,
    BrokerEvent,
    OrderAccepted,
    OrderEvent,
    OrderFilled,
    Tick,
)

NEVER = 2**63 - 1
"""A moment that does not come, nanoseconds."""

QUOTES = ("zero", "negative", "nan", "infinite", "crossed", "spike", "wide")
"""The kinds of `bad_quote`."""


@dataclasses.dataclass(kw_only=True)
class Faults:
    """The faults of a paper broker; all off at first.

    Orders: slow_submit_s, seconds that handing over takes; reject, reject_exits: orders refused,
    of any kind or of those that guard a position; drop_orders: orders that never arrive, without a
    word; latency_bars: bars that pass before an order can fill; fill_share: largest part of an
    order that a bar fills; reject_cancels: cancellations refused; late_fills: orders that fill
    though their cancellation was confirmed; lose_exits: exits confirmed, and then gone.

    Events: drop_acks: acknowledgements lost; mute: orders of which nothing is told; latency_ns:
    after which events of orders arrive; jitter_ns: up to which it is longer, so that they come out
    of order; duplicates: how many times more each fill is told; corrections: fills that are
    corrected after the next bar, by `correction`, a fraction of the price.

    Market: bad_quotes: quotes that are replaced by a `bad_quote` of the kind `quote_kind`.

    Connection: refuse_connections, incomplete_snapshots, failing_snapshots: how many of them.
    """

    seed: int = 0
    slow_submit_s: float = 0.0
    reject: int = 0
    reject_exits: int = 0
    drop_orders: int = 0
    latency_bars: int = 0
    fill_share: float = 1.0
    reject_cancels: int = 0
    late_fills: int = 0
    lose_exits: int = 0
    drop_acks: int = 0
    mute: int = 0
    latency_ns: int = 0
    jitter_ns: int = 0
    duplicates: int = 0
    corrections: int = 0
    correction: float = 1e-3
    bad_quotes: int = 0
    quote_kind: str = "crossed"
    refuse_connections: int = 0
    incomplete_snapshots: int = 0
    failing_snapshots: int = 0

    def take(self, name: str) -> bool:
        """Whether a counted fault happens now; counts it."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0


class Line:
    """Events on their way; those of orders may be lost, doubled, late and out of order."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._random = random.Random(faults.seed)
        self._ready: deque[BrokerEvent] = deque()
        self._late: list[tuple[int, int, BrokerEvent]] = []
        self._muted: set[str] = set()
        self._count = 0

    @property
    def is_prompt(self) -> bool:
        """Whether events of orders come at once, and all of them."""
        faults = self.faults
        return not (faults.latency_ns or faults.jitter_ns or faults.mute or self._muted)

    def mute(self, cid: str) -> None:
        """Tell nothing of an order any more."""
        self._muted.add(cid)

    def clear(self) -> None:
        """What is on its way is lost."""
        self._ready.clear()
        self._late.clear()

    def put(self, event: BrokerEvent, now_ns: int) -> None:
        """Send an event."""
        faults = self.faults
        if not isinstance(event, OrderEvent):
            if isinstance(event, Tick) and faults.take("bad_quotes"):
                event = bad_quote(faults.quote_kind, event)
            self._ready.append(event)
            return
        if event.cid in self._muted and event.cid:
            return
        if isinstance(event, OrderAccepted) and faults.take("drop_acks"):
            return
        times = 1 + faults.duplicates if isinstance(event, OrderFilled) else 1
        for _ in range(times):
            late_ns = faults.latency_ns
            late_ns += self._random.randint(0, faults.jitter_ns) if faults.jitter_ns else 0
            if late_ns:
                self._count += 1
                heapq.heappush(self._late, (now_ns + late_ns, self._count, event))
            else:
                self._ready.append(event)

    def keep(self, wanted: frozenset[str]) -> None:
        """Drop market data of other symbols."""
        kept = [e for e in self._ready if not isinstance(e, Bar | Tick) or e.symbol in wanted]
        self._ready = deque(kept)

    def next_late_ns(self) -> int:
        """When the next late event arrives; `NEVER` if none is under way."""
        return self._late[0][0] if self._late else NEVER

    def take(self, now_ns: int) -> BrokerEvent | None:
        """The next event that has arrived."""
        if self._ready:
            return self._ready.popleft()
        if self._late and self._late[0][0] <= now_ns:
            return heapq.heappop(self._late)[2]
        return None

    def __len__(self) -> int:
        return len(self._ready)


def bad_quote(kind: str, good: Tick) -> Tick:
    """A quote that no engine may trade on, made of a good one; `kind` is one of `QUOTES`."""
    prices = {
        "zero": (0.0, 0.0),
        "negative": (-good.bid, -good.ask),
        "nan": (math.nan, math.nan),
        "infinite": (good.bid, math.inf),
        "crossed": (good.ask * 1.001, good.bid * 0.999),
        "spike": (good.bid * 3.0, good.ask * 3.0),
        "wide": (good.bid * 0.8, good.ask * 1.2),
    }
    bid, ask = prices[kind]
    return dataclasses.replace(good, bid=bid, ask=ask)
