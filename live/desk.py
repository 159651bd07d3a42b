"""One agent of an account: its policy, its symbols, and what it decided last.

Desks know nothing of one another. What one of them does wrong, an exception or a policy that says
what is not finite, is its own: the position is held, and after a few in a row it is paused.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from jaxtrade.live.buffers import F32
from jaxtrade.live.deciding import Decider, Made
from jaxtrade.live.events import Bar, BarDecided, Leg, OrderIntent
from jaxtrade.live.rows import Row, Rows, rows_of
from jaxtrade.live.sections import DecisionSettings
from jaxtrade.live.settings import AgentSettings
from jaxtrade.live.swap import ModelSlot, Seat
from jaxtrade.specs import JaxtradeError

PATIENT_BARS = 2
"""Decisions that an order may outlive before what is not filled of it is cancelled, where the
agent has no `max_order_age_s`."""

KEPT_NOTES = 20
"""Notes that are kept of each agent."""


class Desk:
    """An agent at work.

    symbols: what it trades, in the order of its policy; slot: that policy, and those beside it;
    made: its last decision, None before the first; attempts: orders of that decision so far, by
    symbol; decided_ns: UTC of the last decisions; notes: what a person might want to know, the
    newest last.
    """

    def __init__(self, settings: AgentSettings, seat: Seat, decisions: DecisionSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.symbols = seat.decider.symbols
        self.decisions = decisions
        self.slot = ModelSlot(seat, shadow_bars=settings.shadow_bars)
        self.rows = Rows(
            self.symbols,
            bar_seconds=self.decider.bar_seconds,
            patience_ns=_patience_ns(decisions),
        )
        self.made: Made | None = None
        self.decided_ns: deque[int] = deque(maxlen=PATIENT_BARS + 1)
        self.attempts: dict[str, int] = {}
        self.notes: deque[str] = deque(maxlen=KEPT_NOTES)

    @property
    def decider(self) -> Decider:
        """The policy that trades, at work."""
        return self.slot.active.decider

    @property
    def model(self) -> str:
        """What its bundle is called."""
        return self.slot.active.name

    @property
    def bar_seconds(self) -> int:
        """Length of the bars that it decides on."""
        return self.decider.bar_seconds

    @property
    def no_trade_band(self) -> float:
        """Smallest change of exposure that is traded."""
        band = self.settings.no_trade_band
        return self.decider.policy.metadata.no_trade_band if band is None else band

    @property
    def has_exits(self) -> bool:
        """Whether its positions are to have a stop or a target."""
        return bool(self.settings.stop_loss or self.settings.take_profit)

    def change(self, settings: AgentSettings, decisions: DecisionSettings) -> None:
        """Other settings, from the next decision on."""
        self.settings, self.decisions = settings, decisions
        self.slot.use(settings, decisions)
        self.rows.patience_ns = _patience_ns(decisions)

    def begin(
        self, histories: Sequence[Sequence[Bar]], carry: bytes | None, decided_s: int
    ) -> Row | None:
        """Take up work: go on from what the policy remembered, or warm it up from history.

        histories: finished bars of each symbol, oldest first; carry: what the journal kept after
        the decision on the bars that started at `decided_s`, 0 for none.

        Returns the newest row where it was not decided on, after a restart: it is still to be
        decided. Rows between it and the last decision are seen and not acted upon.
        """
        rows = rows_of(histories)
        if carry is None or not self._take_up(carry, decided_s):
            seen = rows if not decided_s else [row for row in rows if row[0].start_s <= decided_s]
            self.decider.warm(seen)
        last = self.decider.last_start_s
        missed = [row for row in rows if last is None or row[0].start_s > last]
        newest = missed.pop() if missed and decided_s else None
        self.decider.see(missed)
        self.rows.begin_after(self.decider.last_start_s)
        if missed:
            self.notes.append(f"{len(missed)} bars were missed, and seen without a decision")
        return newest

    def catch_up(self, histories: Sequence[Sequence[Bar]]) -> Row | None:
        """The same after a disconnect, with the policy as it is."""
        rows = rows_of(histories)
        last = self.decider.last_start_s
        missed = [row for row in rows if last is None or row[0].start_s > last]
        newest = missed.pop() if missed else None
        self.slot.see(missed)
        self.rows.begin_after(self.decider.last_start_s)
        return newest

    def decide(self, row: Row, vector: F32, *, at_ns: int, mask: F32 | None = None) -> Made:
        """Decide on a row; `Made.held` says where the target is just what is held."""
        self.made = self.slot.decide(row, vector, mask=mask)
        self.attempts = {}
        self.decided_ns.append(at_ns)
        return self.made

    def target(self, symbol: str) -> float | None:
        """The exposure of a symbol that was decided last, None before."""
        if self.made is None:
            return None
        return self.made.target[self.symbols.index(symbol)]

    def is_too_old(self, intent: OrderIntent) -> bool:
        """Whether an order has not been filled for too many bars."""
        is_full = len(self.decided_ns) > PATIENT_BARS
        is_ours = intent.agent == self.name and intent.leg is Leg.TARGET
        has_own_age = self.settings.max_order_age_s is not None
        return is_ours and is_full and not has_own_age and intent.reference_ns <= self.decided_ns[0]

    def event(
        self, made: Made, *, at_ns: int, equity: float, reward: float, verdict: str
    ) -> BarDecided:
        """The decision as it goes into the journal."""
        return BarDecided(
            at_ns=at_ns,
            agent=self.name,
            start_s=made.start_s,
            symbols=self.symbols,
            model=self.model,
            inputs_hash=made.inputs_hash,
            requested=made.requested,
            target=made.target,
            action=made.action,
            probabilities=made.probabilities,
            value=made.value,
            confidence=made.confidence,
            binding=made.binding,
            equity=equity,
            reward=reward,
            closes=made.closes,
            verdict=verdict,
        )

    def _take_up(self, carry: bytes, decided_s: int) -> bool:
        """Whether a carry is one to go on from."""
        try:
            self.decider.from_bytes(carry)
        except JaxtradeError as error:
            self.notes.append(str(error))
            return False
        if self.decider.last_start_s != decided_s:
            self.notes.append("what the policy remembered is not of its last decision")
            return False
        return True


def _patience_ns(decisions: DecisionSettings) -> int:
    return round(decisions.bar_wait_s * 1e9)


def owners(desks: Mapping[str, Desk]) -> dict[str, Desk]:
    """The desk of each symbol.

    Raises:
        JaxtradeError: a symbol has two.
    """
    found: dict[str, Desk] = {}
    for desk in desks.values():
        for symbol in desk.symbols:
            if symbol in found:
                raise JaxtradeError(
                    f"{symbol} is traded by {found[symbol].name} and {desk.name}: a symbol has one "
                    "owner"
                )
            found[symbol] = desk
    return found
