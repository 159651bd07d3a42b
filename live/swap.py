"""Another policy for an agent that trades: seen to be whole, watched, then swapped between bars.

What a pointer points at newly is prepared off the hot path (`prepare`, then `Decider.warm`, in a
thread): hash, metadata that fit, its own golden answers, history. It then decides on every bar
beside the policy that trades, without being traded (`ModelSlot.follow`), and after enough bars
takes over before the next one (`ModelSlot.turn`). Whatever goes wrong, the old policy trades on.

The old one is kept and goes on seeing bars, so that going back to it takes no time; it takes over
by itself where the new one fails twice in a row. A bundle that was refused or taken back is not
offered again, unless a person asks for it.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from jaxtrade.live import golden
from jaxtrade.live.buffers import F32
from jaxtrade.live.deciding import Decider, Made
from jaxtrade.live.pointer import Bundle
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.live.rows import Row
from jaxtrade.live.sections import DecisionSettings
from jaxtrade.live.settings import AgentSettings
from jaxtrade.specs import BundleMetadata, JaxtradeError

FAILURES_BACK = 2
"""Decisions in a row that fail, and the policy before takes over; one less than what makes an agent
reduce only, where that is fewer."""

RECENT_ROWS = 256
"""Kept so that a candidate can catch up with what happened while it was warmed."""


@dataclasses.dataclass(kw_only=True)
class Seat:
    """A policy in its place: name, a version or a file; shadowed: bars that it has decided on
    without trading; failures_back: decisions in a row that fail, and the policy before takes over.
    """

    name: str
    decider: Decider
    shadowed: int = 0
    failures_back: int = FAILURES_BACK

    @property
    def sha256(self) -> str:
        """Of its bundle."""
        return self.decider.policy.sha256

    def use(self, agent: AgentSettings, decisions: DecisionSettings) -> None:
        """Decide by these settings from the next decision on."""
        self.decider.set_limits(agent.reviewed_by(self.decider.policy.metadata.limits))
        self.decider.deadline_ns = round(decisions.deadline_s * 1e9)
        self.failures_back = min(FAILURES_BACK, max(decisions.max_failures - 1, 1))


class Swapped(NamedTuple):
    """A policy has taken the place of another; for a `ModelSwapped` event."""

    name: str
    sha256: str
    reason: str


class Followed(NamedTuple):
    """What a candidate would have done; refused: why it is none any more, for `ModelRefused`."""

    name: str
    made: Made
    refused: str = ""


def prepare(
    bundle: Bundle,
    agent: AgentSettings,
    decisions: DecisionSettings,
    *,
    like: BundleMetadata | None = None,
) -> Seat:
    """A bundle that is whole and answers as it was exported, for an agent; cold, for a thread.

    like: the metadata of the policy that trades, which it then has to fit.

    Raises:
        JaxtradeError: it is damaged, of other symbols or bars, or answers otherwise.
    """
    try:
        policy = OnnxPolicy(bundle.content)
        if like is not None:
            _require_fit(policy.metadata, like)
        if not golden.check(policy):
            raise JaxtradeError("has no golden answers: export the policy again")
        known = policy.metadata
        decider = Decider(policy, agent.symbols or known.symbols, limits=known.limits)
    except JaxtradeError as error:
        raise JaxtradeError(f"{bundle.name}: {error}") from error
    seat = Seat(name=bundle.name, decider=decider)
    seat.use(agent, decisions)
    return seat


def _require_fit(given: BundleMetadata, like: BundleMetadata) -> None:
    for name in ("symbols", "bar_seconds"):
        mine, other = getattr(given, name), getattr(like, name)
        if mine != other:
            raise JaxtradeError(f"{name} is {mine}: the policy that trades has {other}")


class ModelSlot:
    """The policy that an agent trades with, the one before it and the one that may come after it.

    rejected: hashes that are not offered again.

    Usage, for each row of bars:
        swapped = slot.turn()
        made = slot.decide(row, account)
        ...  # orders
        followed = slot.follow(row, account)
    """

    def __init__(self, active: Seat, *, shadow_bars: int) -> None:
        self.active = active
        self.previous: Seat | None = None
        self.candidate: Seat | None = None
        self.shadow_bars = shadow_bars
        self.rejected: set[str] = set()
        self._recent: deque[Row] = deque(maxlen=RECENT_ROWS)
        self._goes_back = ""

    def wants(self, sha256: str) -> bool:
        """Whether a bundle is new here, and was not rejected."""
        known = {seat.sha256 for seat in (self.active, self.candidate) if seat is not None}
        return sha256 not in known | self.rejected

    def offer(self, seat: Seat) -> None:
        """Let a prepared and warmed policy follow from the next row on, instead of any other.

        Raises:
            JaxtradeError: it cannot take the rows that came since it was warmed, or they are no
                longer all known.
        """
        last, rows = seat.decider.last_start_s, list(self._recent)
        if rows and last is not None and last < rows[0][0].start_s and len(rows) == RECENT_ROWS:
            raise JaxtradeError(f"{seat.name}: its history ends too early: warm it up again")
        seat.decider.see(rows)
        self.candidate = seat

    def reject(self, sha256: str) -> None:
        """Do not offer a bundle again."""
        self.rejected.add(sha256)

    def turn(self) -> Swapped | None:
        """Between two bars: change places, where there is a reason to; what was changed to."""
        back = self._goes_back
        if not back and self.active.decider.failures >= self.active.failures_back:
            back = f"{self.active.name} failed {self.active.decider.failures} times in a row"
        if back and self.previous is not None and not self.previous.decider.failures:
            self.reject(self.active.sha256)
            self.active, self.previous, self._goes_back = self.previous, None, ""
            return Swapped(self.active.name, self.active.sha256, f"rolled back: {back}")
        self._goes_back = ""
        seat = self.candidate
        if seat is None or seat.shadowed < self.shadow_bars or not seat.decider.policy.is_warm:
            return None
        self.previous, self.active, self.candidate = self.active, seat, None
        return Swapped(seat.name, seat.sha256, f"after {seat.shadowed} bars in the shadow")

    def rollback(self, reason: str) -> None:
        """Ask for the policy before, from the next bar on.

        Raises:
            JaxtradeError: there is none.
        """
        if self.previous is None:
            raise JaxtradeError(f"cannot roll back: {self.active.name} is the first policy here")
        self._goes_back = reason

    def use(self, agent: AgentSettings, decisions: DecisionSettings) -> None:
        """Decide by these settings from the next decision on, whoever decides."""
        for seat in self._seats():
            seat.use(agent, decisions)

    def decide(self, row: Row, account: F32, *, mask: F32 | None = None) -> Made:
        """The decision to trade on, see `Decider.decide`."""
        return self.active.decider.decide(row, account, mask=mask)

    def see(self, rows: Iterable[Row], account: F32 | None = None) -> None:
        """Let every policy see rows that are not traded. Raises as `Decider.see`."""
        for row in rows:
            self._recent.append(row)
            for seat in self._seats():
                seat.decider.see([row], account)

    def follow(self, row: Row, account: F32, *, mask: F32 | None = None) -> Followed | None:
        """Let the others decide too, once the orders of a row are on their way; what the candidate
        made of it. One that fails once is a candidate no more.
        """
        self._recent.append(row)
        if self.previous is not None:
            self.previous.decider.decide(row, account, mask=mask)
        seat = self.candidate
        if seat is None:
            return None
        made = seat.decider.decide(row, account, mask=mask)
        if made.failures:
            self.candidate = None
            self.reject(seat.sha256)
            return Followed(seat.name, made, f"failed in the shadow: {made.held}")
        seat.shadowed += 1
        return Followed(seat.name, made)

    def _seats(self) -> list[Seat]:
        seats = (self.active, self.previous, self.candidate)
        return [seat for seat in seats if seat is not None]
