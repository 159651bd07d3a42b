"""From rows of finished bars to decisions, the very numbers that training and backtest see.

A policy that fails is held: a decision that raises, whose numbers are not finite or that took
longer than it may leaves the position as it is, and `Made.failures` counts how many in a row. A
decision runs in the engine's own thread, so one that never returns cannot be ended from here: the
engine then misses its heartbeats and the supervisor replaces the process.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable

import numpy as np

from jaxtrade.bars import clock_row, relative_bar
from jaxtrade.live import carrying
from jaxtrade.live.buffers import F32
from jaxtrade.live.carrying import Kept
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.policy import Decision, OnnxPolicy
from jaxtrade.live.rows import Row
from jaxtrade.specs import BINDING_FLAGS, CLOCK_FIELDS, JaxtradeError, RiskLimits

DEADLINE_NS = SECOND_NS
"""A decision that takes longer is not acted upon, unless the settings say otherwise."""

NOT_FINITE = 1 << BINDING_FLAGS.index("not_finite")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A decision on one row of bars, in plain numbers; see `decision.Decision`.

    start_s: of the bars; closes: of the symbols, quote currency; requested, target: exposures
    before and after the risk review; held: why the target is the exposure there is already, "" for
    a decision of the policy that counts; failures: decisions in a row that failed, this one
    included; duration_ns: of the decision; inputs_hash: of all that the graph was told, "" where
    it was not run.
    """

    start_s: int
    closes: tuple[float, ...]
    requested: tuple[float, ...]
    target: tuple[float, ...]
    action: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    value: float = 0.0
    confidence: float = 0.0
    binding: int = 0
    inputs_hash: str = ""
    held: str = ""
    failures: int = 0
    duration_ns: int = 0


class Decider:
    """A policy at work on `symbols`, which stand for those of its metadata, in their order.

    last_start_s: start of the last row that the policy has seen, None before the first;
    deadline_ns: a decision that takes longer is not acted upon.

    Usage:
        decider = Decider(OnnxPolicy("policy.onnx"), ("SPY",), limits=RiskLimits())
        decider.warm(rows_of([history]))
        row = rows.add(bar, steady_ns=clock.steady_ns())
        if row is not None:
            made = decider.decide(row, account)
    """

    def __init__(
        self,
        policy: OnnxPolicy,
        symbols: tuple[str, ...],
        *,
        limits: RiskLimits,
        timer: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Raises JaxtradeError where the policy is of another number of symbols."""
        known = policy.metadata
        if len(symbols) != len(known.symbols) or len(set(symbols)) != len(symbols):
            raise JaxtradeError(
                f"symbols {', '.join(symbols) or 'none'}: the policy of {known.agent!r} trades "
                f"{len(known.symbols)} ({', '.join(known.symbols)}): give as many, each once"
            )
        self.policy = policy
        self.symbols = symbols
        self.bar_seconds = known.bar_seconds
        self.failures = 0
        self.last_start_s: int | None = None
        self._closes: tuple[float, ...] = ()
        self._names = known.features.context
        self.deadline_ns, self._timer = DEADLINE_NS, timer
        self._bar = np.zeros((len(symbols), 5), np.float32)
        self._context = np.zeros(len(self._names), np.float32)
        self._clock = np.zeros(len(CLOCK_FIELDS), np.float32)
        self._open = np.ones(len(symbols), np.float32)
        self._flat = np.zeros(len(known.account_fields), np.float32)
        self.set_limits(limits)

    def set_limits(self, limits: RiskLimits) -> None:
        """Review targets by these limits from the next decision on."""
        self._limits = np.asarray(limits.hard_vector(), np.float32)

    def decide(self, row: Row, account: F32, *, mask: F32 | None = None) -> Made:
        """See a row and decide at its close; whatever goes wrong is a hold, and nothing raises.

        account: f32[3A + 3], see `ledger.account_vector`, marked at the row's closes; mask:
        f32[A], 1 where the symbol may be traded, by default everywhere.
        """
        weights = account[: len(self.symbols)].tolist()
        started = self._timer()
        try:
            decision = self._see(row, account, mask)
        except Exception as error:  # a policy may fail in any way, and none may stop the engine
            text = " ".join(str(error).split())[:200]
            problem = f"the policy failed: {type(error).__name__}: {text}"
            return self._held(row, weights, problem, self._timer() - started)
        took = self._timer() - started
        if took > self.deadline_ns:
            return self._held(row, weights, f"the policy took {took / 1e9:.1f} s", took)
        made = self._made(row, decision, weights, took)
        if made is None:
            return self._held(row, weights, "the policy says no numbers, or too many", took)
        self.failures = 0
        return made

    def see(self, rows: Iterable[Row], account: F32 | None = None) -> int:
        """See rows without acting on them, such as those missed while away; how many were new.

        Raises:
            JaxtradeError: a row that the policy cannot take.
        """
        count = 0
        for row in rows:
            if self.last_start_s is None or row[0].start_s > self.last_start_s:
                self._see(row, self._flat if account is None else account, None)
                count += 1
        return count

    def warm(self, rows: Iterable[Row]) -> int:
        """Begin anew with a history: its bars are seen, and the network remembers none of them, as
        where an episode begins. How many rows there were; raises as `see`.
        """
        self.policy.reset()
        self.last_start_s, self.failures = None, 0
        count = self.see(rows)
        self.policy.forget()
        return count

    def to_bytes(self) -> bytes:
        """All that the policy remembers, and what the next row is measured from."""
        kept = Kept(self.policy.carry(), self.last_start_s, self._closes)
        return carrying.pack(kept, sha256=self.policy.sha256)

    def from_bytes(self, blob: bytes) -> None:
        """Go on from what `to_bytes` gave.

        Raises:
            JaxtradeError: it is damaged, or of another bundle.
        """
        kept = carrying.unpack(blob, like=self.policy.carry(), sha256=self.policy.sha256)
        self.policy.restore(kept.carry)
        self.last_start_s, self._closes = kept.last_start, kept.closes

    def explain(self) -> dict[str, float]:
        """What each feature added to the last choice, see `OnnxPolicy.explain`."""
        return self.policy.explain()

    def _see(self, row: Row, account: F32, mask: F32 | None) -> Decision:
        """The policy's decision; only with one does the row count as seen."""
        start = row[0].start_s
        is_first = self.last_start_s is None
        before = [bar.open for bar in row] if is_first else self._closes
        self._bar[...] = [
            [*relative_bar((bar.open, bar.high, bar.low, bar.close), close), bar.volume]
            for bar, close in zip(row, before, strict=True)
        ]
        self._clock[...] = clock_row(start, self.last_start_s, bar_seconds=self.bar_seconds)
        if self._names:
            self._context[...] = context_of(row, self._names, self.policy.metadata.symbols)
        open_ = self._open if mask is None else mask
        told = (self._bar, self._context, self._clock, open_, account, self._limits)
        decision = self.policy.decide(*told)
        self.last_start_s, self._closes = start, tuple([bar.close for bar in row])
        return decision

    def _made(self, row: Row, decision: Decision, weights: list[float], took: int) -> Made | None:
        """A decision in plain numbers; None where one is not finite or they are too many."""
        requested, target = decision.requested.tolist(), decision.target.tolist()
        action = decision.action
        actions = [action] if isinstance(action, int) else action.tolist()
        probabilities = decision.probabilities.tolist()
        said = (decision.value, decision.confidence)
        is_finite = all(map(math.isfinite, (*requested, *target, *actions, *probabilities, *said)))
        if not is_finite or not len(requested) == len(target) == len(weights):
            return None
        policy, held = self.policy, ""
        if not policy.is_warm:
            held = f"warming up: {policy.bars_seen} of {policy.metadata.warmup_bars} bars"
        return Made(
            start_s=row[0].start_s,
            closes=self._closes,
            requested=tuple(requested),
            target=tuple(weights if held else target),
            action=tuple(map(float, actions)),
            probabilities=tuple(probabilities),
            value=decision.value,
            confidence=decision.confidence,
            binding=decision.binding,
            inputs_hash=policy.inputs_hash,
            held=held,
            duration_ns=took,
        )

    def _held(self, row: Row, weights: list[float], problem: str, took: int) -> Made:
        self.failures += 1
        return Made(
            start_s=row[0].start_s,
            closes=tuple([bar.close for bar in row]),
            requested=tuple(weights),
            target=tuple(weights),
            binding=NOT_FINITE,
            inputs_hash=self.policy.inputs_hash,
            held=problem,
            failures=self.failures,
            duration_ns=took,
        )


def context_of(row: Row, names: tuple[str, ...], policy_symbols: tuple[str, ...]) -> list[float]:
    """The context columns of a row in the order of `names`: `vix`, of the first bar that has it, or
    `spy_vix`, of the bar that stands for SPY, as where markets were combined.

    Raises:
        JaxtradeError: none of the bars has one.
    """
    known: dict[str, float] = {}
    for bar, symbol in zip(row, policy_symbols, strict=True):
        for name, value in bar.context:
            known.setdefault(name, value)
            known[f"{symbol}_{name}".lower()] = value
    missing = [name for name in names if name not in known]
    if missing:
        has = ", ".join(name for bar in row for name, _ in bar.context) or "none"
        raise JaxtradeError(
            f"the policy needs the column {missing[0]!r}; the bars of "
            f"{', '.join(bar.symbol for bar in row)} have: {has}"
        )
    return [known[name] for name in names]
