"""The conformance suite, on the paper broker and on brokers that break what it asks for."""

import asyncio
import dataclasses

import pytest

from jaxtrade.live.brokers.conformance import Rig, cases, check_broker, check_case
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_handle import PaperHandle
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import OrderFilled, OrderKind
from jaxtrade.rules import make_rules
from tests.test_live_paper import MARKET, venue_under

VENUE = venue_under(make_rules())
STEPS = 10_000_000_000  # of 1e-8 units: 100 units, a tenth of the account


def rig(kind=PaperBroker, **options):
    clock = SimulatedClock()
    broker = kind(Replay(VENUE), clock=clock, **options)
    return Rig(
        broker=broker,
        symbols=MARKET.spec.symbols,
        bar_seconds=MARKET.spec.bar_seconds,
        faults=PaperHandle(broker, clock),
        steps=STEPS,
    )


@pytest.mark.parametrize("name", cases())
def test_the_paper_broker_conforms(name) -> None:
    outcome = asyncio.run(check_case(cases()[name], rig()))
    assert (outcome.status, outcome.detail) == ("passed", "")


def test_its_books_in_a_file_change_nothing(tmp_path) -> None:
    made = iter(range(100))
    outcomes = asyncio.run(check_broker(lambda: rig(path=tmp_path / f"{next(made)}.db")))
    assert {outcome.status for outcome in outcomes} == {"passed"}


class Forgetful(PaperBroker):
    async def snapshot(self):
        whole = await super().snapshot()
        return dataclasses.replace(whole, open_orders=(), fills=())


class Eager(PaperBroker):
    async def submit_order(self, intent):
        await super().submit_order(intent)
        if intent.kind is OrderKind.MARKET:
            self._desk.trade_outside(intent.symbol, intent.side.sign * intent.quantity)


class Nameless(PaperBroker):
    def _tell(self, events):
        super()._tell(
            dataclasses.replace(e, execution_id="X") if isinstance(e, OrderFilled) else e
            for e in events
        )


class Stubborn(PaperBroker):
    async def cancel_order(self, cid):
        self.faults.reject_cancels = 1
        await super().cancel_order(cid)

    async def cancel_all_orders(self, symbol=None):
        pass

    async def close_all_positions(self):
        pass


class Twice(PaperBroker):
    async def submit_order(self, intent):
        if self._desk.books.order_of(intent.cid) is not None:
            intent = dataclasses.replace(intent, cid="Z" + intent.cid[1:])
        await super().submit_order(intent)


class Optimist(PaperBroker):
    def is_connected(self):
        return True

    def _require_connection(self):
        pass

    async def snapshot(self):
        self.faults.failing_snapshots = 0
        return dataclasses.replace(await super().snapshot(), is_complete=True)


class Repeating(PaperBroker):
    def _tell_market(self):
        super()._tell_market()
        super()._tell_market()

    async def history(self, symbol, *, bar_seconds, count):
        bars = await super().history(symbol, bar_seconds=bar_seconds, count=count)
        return bars[::-1]


BROKEN = {
    Forgetful: (
        "a_waiting_order_works_until_it_is_cancelled",
        "a_snapshot_is_what_was_told",
        "orders_go_on_working_without_us",
        "a_lost_acknowledgement_is_found",
        "a_fill_while_we_were_gone_is_found",
        "a_refused_cancellation_changes_nothing",
    ),
    Eager: ("positions_are_the_sum_of_fills", "a_snapshot_is_what_was_told", "parts_add_up"),
    Nameless: ("executions_have_ids_of_their_own",),
    Stubborn: (
        "a_waiting_order_works_until_it_is_cancelled",
        "all_orders_can_be_cancelled",
        "all_positions_can_be_closed",
        "an_order_of_others_is_seen_and_can_be_ended",
    ),
    Twice: ("the_same_order_twice_trades_once",),
    Optimist: (
        "a_new_connection_is_a_new_epoch",
        "nothing_is_asked_without_a_connection",
        "silence_is_noticed",
        "an_incomplete_snapshot_says_so",
        "a_snapshot_that_fails_raises",
    ),
    Repeating: ("bars_come_once_and_in_order", "history_ends_where_the_bars_begin"),
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broker_that_breaks_a_rule_is_found_out(kind) -> None:
    outcomes = asyncio.run(check_broker(lambda: rig(kind), only=BROKEN[kind]))
    assert {outcome.case: outcome.status for outcome in outcomes} == dict.fromkeys(
        BROKEN[kind], "failed"
    )
    assert all(outcome.detail for outcome in outcomes)


def test_what_a_broker_cannot_be_made_to_do_is_skipped() -> None:
    plain = dataclasses.replace(rig(), faults=None)
    outcome = asyncio.run(check_case(cases()["a_refusal_is_told"], plain))
    assert (outcome.status, outcome.detail) == ("skipped", "needs the fault reject")
