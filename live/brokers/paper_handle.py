"""The faults of a paper broker by the names of the conformance suite."""

from collections.abc import Callable
from typing import Any

from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.clock import SECOND_NS, SimulatedClock


class PaperHandle:
    """A `FaultHandle` on a paper broker."""

    def __init__(self, broker: PaperBroker, clock: SimulatedClock) -> None:
        self._broker = broker
        self._clock = clock
        faults = broker.faults
        self._known: dict[str, Callable[..., None]] = {
            "reject": lambda: setattr(faults, "reject", 1),
            "drop_ack": lambda: setattr(faults, "drop_acks", 1),
            "drop_order": lambda: setattr(faults, "drop_orders", 1),
            "partial_fills": lambda share: setattr(faults, "fill_share", share),
            "duplicate_fills": lambda times: setattr(faults, "duplicates", times),
            "correct_fill": lambda: setattr(faults, "corrections", 1),
            "late_fill": lambda: setattr(faults, "late_fills", 1),
            "reject_cancel": lambda: setattr(faults, "reject_cancels", 1),
            "disconnect": lambda: broker.break_connection(bars=2),
            "freeze": self._freeze,
            "thaw": broker.thaw,
            "outside_trade": broker.trade_outside,
            "outside_order": broker.order_outside,
            "incomplete_snapshot": lambda: setattr(faults, "incomplete_snapshots", 1),
            "failing_snapshot": lambda: setattr(faults, "failing_snapshots", 1),
            "shuffle": self._shuffle,
        }

    def can(self, fault: str) -> bool:
        """Whether there is such a fault."""
        return fault in self._known

    async def inject(self, fault: str, **options: Any) -> None:
        """Let it happen."""
        self._known[fault](**options)

    def _freeze(self, seconds: float) -> None:
        self._broker.freeze()
        self._clock.advance(round(seconds * SECOND_NS))

    def _shuffle(self) -> None:
        self._broker.faults.latency_ns = 1
        self._broker.faults.jitter_ns = 1_000_000
