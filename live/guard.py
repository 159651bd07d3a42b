"""The last look at every order before it is journalled and sent: what is not proved is refused.

    refusal = check(intent, view)             # None: it may be sent, and is counted as sent
    refusal = check(stop, view, [intent])     # the next of the same decision

Written apart from the policy's risk review and from planning, so that a mistake there stops here.
The checks of `CHECKS` run in their order, the first that objects names the refusal, and one that
fails itself objects. Exposure counts all orders under way as filled, in whichever way is worse, so
what is checked and journalled before the next check is reserved for it.

A reduce-only order that really reduces is an exit: of the opposite side of what is held (or of what
the orders of its own decision open) and no larger. It must be whole, of a known instrument, its
owner's, no duplicate, within `exits_per_minute`, and there has to be one sane price, however old.
It skips what would trap a position: session, size, collar, age and spread of quotes, reconciling,
locks, pauses, blocks, exposure, margin, headroom. REDUCING lets all exits pass; HALTED those that
are not the policy's (closing, stops, targets); KILLED closing alone.
"""

import dataclasses
from collections.abc import Sequence

from jaxtrade.live.checks import CHECKS
from jaxtrade.live.events import OrderIntent
from jaxtrade.live.guard_case import Case, View

__all__ = ("Refusal", "View", "check")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an order is not sent: the name of the check, what it found; halts: trading is to stop."""

    check: str
    reason: str
    halts: bool = False


def check(intent: OrderIntent, view: View, batch: Sequence[OrderIntent] = ()) -> Refusal | None:
    """Why an order may not be sent, or None; then it is counted in `view.rates`.

    batch: orders of the same decision that have passed and are not in `view.orders` yet.
    """
    name = "numbers"
    try:
        case = Case(intent, view, batch)
        for name, objection, is_for_exits in CHECKS:
            if is_for_exits or not case.is_exit:
                reason = objection(case)
                if reason:
                    return Refusal(check=name, reason=reason, halts=name == "rate")
    except Exception as error:
        return Refusal(check=name, reason=f"the check failed: {error!r}")
    return None
