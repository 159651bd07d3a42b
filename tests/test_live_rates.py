import dataclasses
from decimal import Decimal

from jaxtrade.live.events import Leg, OrderInitialized
from jaxtrade.live.limits import GuardLimits
from jaxtrade.live.orders import begin
from jaxtrade.live.rates import Rates
from tests.live_orders import SECOND, intent_of

DAY = 86_400 * SECOND
NOON = 20_000 * DAY + DAY // 2
MANY = 10**6
OPEN = GuardLimits(
    orders_per_minute_symbol=MANY,
    orders_per_minute_agent=MANY,
    orders_per_minute=MANY,
    orders_per_day=MANY,
    turnover_per_day=float("inf"),
)


def admit(rates, *, seconds=0.0, wall_ns=NOON, turnover=0.1, is_exit=False, **fields):
    fields = {"symbol": "A", "agent": "a", **fields}
    return rates.admit(
        intent_of(1, **fields),
        steady_ns=round(seconds * SECOND),
        wall_ns=wall_ns,
        turnover=turnover,
        is_exit=is_exit,
    )


def limited(**fields):
    return Rates(dataclasses.replace(OPEN, **fields))


def admitted(rates, number=100, **fields):
    return sum(admit(rates, **fields) == "" for _ in range(number))


def test_a_symbol_has_its_minute():
    rates = limited(orders_per_minute_symbol=6)
    assert admitted(rates) == 6
    assert "more than 6 orders in a minute (symbol A)" in admit(rates)
    assert admitted(rates, symbol="B") == 6
    assert admitted(rates, seconds=9.9) == 0
    assert admitted(rates, seconds=10.0) == 1
    assert admitted(rates, seconds=40.0) == 3
    assert admitted(rates, seconds=5_000.0) == 6  # never more than a minute's


def test_an_agent_and_the_account_have_theirs():
    rates = limited(orders_per_minute_agent=4, orders_per_minute=6)
    assert sum(admitted(rates, 1, symbol=str(i)) for i in range(9)) == 4
    assert sum(admitted(rates, 1, symbol=str(i), agent="b") for i in range(9)) == 2
    assert "(account)" in admit(rates, agent="c")


def test_what_is_refused_takes_nothing():
    rates = limited(orders_per_minute_symbol=2, orders_per_minute=4)
    assert admitted(rates) == 2
    assert admitted(rates, symbol="B") == 2
    assert (rates.orders, round(rates.turnover, 9)) == (4, 0.4)


def test_exits_have_a_bucket_of_their_own():
    rates = limited(orders_per_minute=1, orders_per_day=1, turnover_per_day=0.1, exits_per_minute=3)
    assert admitted(rates) == 1
    assert admitted(rates, is_exit=True, turnover=5.0) == 3
    assert "exits" in admit(rates, is_exit=True)
    assert rates.orders == 1


def test_a_day_has_its_orders_and_its_turnover():
    rates = limited(orders_per_day=3)
    assert admitted(rates) == 3
    assert "more than 3 orders today" in admit(rates)
    assert admitted(rates, wall_ns=NOON + DAY // 2) == 3
    rates = limited(turnover_per_day=1.0)
    assert admitted(rates, turnover=0.25) == 4
    assert "a turnover of 1.2 times equity today, 1 may be" in admit(rates, turnover=0.25)
    assert "turnover" in admit(limited(turnover_per_day=1.0), turnover=float("nan"))


def test_a_wall_clock_that_goes_back_gives_no_second_day():
    rates = limited(orders_per_day=3)
    assert admitted(rates, wall_ns=NOON + DAY) == 3
    assert admitted(rates, wall_ns=NOON) == 0
    assert admitted(rates, wall_ns=NOON + DAY) == 0


def test_limits_may_change_while_it_counts():
    rates = limited(orders_per_minute_symbol=2)
    assert admitted(rates) == 2
    rates.limits = dataclasses.replace(rates.limits, orders_per_minute_symbol=60)
    assert admitted(rates, seconds=3.0) == 3


def test_the_day_is_counted_again_after_a_restart():
    def sent(hours, **fields):
        intent = intent_of(5, **fields)
        at_ns = NOON + hours * 3_600 * SECOND
        return begin(OrderInitialized(at_ns=at_ns, cid=intent.cid, intent=intent))

    orders = [
        sent(-13),  # yesterday
        sent(-3),
        sent(-2, reference_price=50.0),
        sent(-1, leg=Leg.CLOSE, reduce_only=True),
    ]
    rates = limited(orders_per_day=3, turnover_per_day=1.0)
    rates.restore(orders, equity=1_000.0, wall_ns=NOON)
    assert (rates.orders, rates.turnover) == (2, 0.75)
    assert admit(rates, turnover=0.2) == ""
    assert "today" in admit(rates, turnover=0.01)
    assert orders[1].intent.quantity == Decimal(5)
