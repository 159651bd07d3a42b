"""What the subcommands kill and rearm do. It brings next to nothing, for it has to be quick."""

import time
from pathlib import Path

from jaxtrade.live.control import NotRunningError, ask
from jaxtrade.live.folders import account_folder
from jaxtrade.live.kill import kill as kill_account
from jaxtrade.live.latches import Latch, is_flattening, is_latched, lift
from jaxtrade.specs import JaxtradeError


def kill(*, folder: str | None, reason: str, flatten: bool, timeout_s: float) -> None:
    """Stop all trading of an account over a connection of this process's own."""
    path = account_folder(folder)
    outcome = kill_account(path, reason, flatten=flatten, timeout_s=timeout_s)
    print(outcome.engine)
    held = ", ".join(outcome.positions) or "nothing"
    if not outcome.is_done:
        left = ", ".join(outcome.orders) or "none known"
        raise JaxtradeError(
            f"{outcome.problem}; last seen orders: {left}; positions: {held}; the latch is "
            f"{'set' if is_latched(path, Latch.KILLED) else 'not set'}: run it again, or act at "
            "the broker"
        )
    print(f"no order works, held: {held} ({outcome.seconds:.1f} s)")
    if outcome.positions:
        print("these positions have no stops any more: jaxtrade kill --flatten closes them")
    print("no engine trades until: jaxtrade rearm --reason TEXT")


def rearm(*, folder: str | None, reason: str) -> None:
    """Lift what is latched, because a person said why."""
    path = account_folder(folder)
    try:
        answer = ask(path, "rearm", reason=reason)
        print(f"trading is {answer.get('state', 'as before')}")
    except NotRunningError:
        said = _rearm_journal(path, reason) if reason.strip() else ""
        lifted = lift(path, reason)
        print(f"lifted: {' '.join(lifted) or 'no file'}{said}")


def _rearm_journal(path: Path, reason: str) -> str:
    """Lift what the journal has latched, holding off any engine for as long as that takes; what
    came of it. One that is damaged is for the next start to restore, which then wants a person.
    """
    # here, for killing must not wait for it
    from jaxtrade.live.events import Rearmed
    from jaxtrade.live.journal import Journal, JournalError
    from jaxtrade.live.journal_db import JOURNAL
    from jaxtrade.live.lock import Lock

    file = path / JOURNAL
    if not file.exists():
        return ""
    was_closed = is_flattening(path)
    with Lock(path / "engine.lock"):
        try:
            with Journal(file, now=time.time_ns) as journal:
                for _, last in list(journal.read(journal.last_seq - 1)):
                    rearmed = Rearmed(at_ns=last.at_ns, reason=reason, was_closed=was_closed)
                    journal.record([rearmed], durable=True)
        except JournalError as error:
            return f"; what the journal has latched stays so: {error}"
    return ", and what the journal had latched"
