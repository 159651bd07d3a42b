"""An account on paper by its settings: options, its market, and the kill switch beside it."""

import asyncio
import subprocess
import sys
from decimal import Decimal

import pytest

from jaxtrade.live.brokers.making import make_broker
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_account import FILE, options_of
from jaxtrade.live.compose import compose
from jaxtrade.live.kill import kill
from jaxtrade.live.settings import write
from jaxtrade.specs import JaxtradeError
from tests.paper_toy import SYMBOL, Toy


@pytest.fixture
def settings(tmp_path):
    made = compose(["model=runs/a", f"folder={tmp_path}/a"])
    write(made)
    return made


def test_options_say_what_the_market_is():
    made = options_of(compose(["model=m", "data='a b,c.csv'", "broker.speed=2"]))
    assert made.overrides("main") == ("data=csv", 'data.path="a b,c.csv"')
    assert made.speed == 2.0
    listed = compose(["model=m", 'broker.data=["data=csv","data.path=x.csv"]'])
    assert options_of(listed).overrides("main") == ("data=csv", "data.path=x.csv")
    assert options_of(compose(["model=m"])).overrides("main") == ()
    two = ["agents.a.model=m", "agents.a.budget=0.5", "agents.b.model=n", "agents.b.budget=0.5"]
    apart = options_of(compose([*two, "broker.data={a:x.csv}"]))
    assert apart.overrides("a") == ("data=csv", 'data.path="x.csv"')
    assert apart.overrides("b") == ()


def test_faults_are_for_rehearsals():
    made = options_of(compose(["model=m", "broker.faults={reject:2}", "broker.faults.seed=7"]))
    assert (made.faults.reject, made.faults.seed) == (2, 7)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("broker.faults.rejct=2", "did you mean 'broker.faults.reject'"),
        ("broker.faults.reject=1.5", "broker.faults.reject is 1.5"),
        ("broker.speed=-1", "broker.speed is -1"),
        ("+broker.spede=1", "did you mean 'broker.speed'"),
        ("broker.data={man:x.csv}", "did you mean 'broker.data.main'"),
    ],
)
def test_slips_are_named(override, said):
    with pytest.raises(JaxtradeError, match=said):
        options_of(compose(["model=m", override]))


def test_a_model_that_is_no_run_names_no_market(settings):
    with pytest.raises(JaxtradeError, match=r"agents\.main\.model is runs/a, no run's directory"):
        make_broker(settings)


def test_an_account_that_has_not_begun_cannot_be_killed(settings):
    with pytest.raises(JaxtradeError, match="there is no paper account"):
        kill(settings.folder, "a test")


HANGS = """
import asyncio, sys, time
sys.path[:0] = sys.argv[2].split(":")
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import Bar, OrderFilled
from tests.paper_toy import Toy, order
async def main():
    broker = PaperBroker(Toy(), clock=SimulatedClock(), path=sys.argv[1])
    await broker.connect()
    async for event in broker.events():
        if isinstance(event, OrderFilled):
            print("holds", flush=True)
            time.sleep(600)  # its loop stands still, with an order on its way
        elif isinstance(event, Bar):
            await broker.submit_order(order(1 + event.start_s // 60))
asyncio.run(main())
"""


def test_what_an_engine_that_hangs_holds_is_closed_beside_it(settings):
    """P19, F27: the books are flat in less than two seconds, whatever the engine does."""
    path = settings.path / FILE
    command = [sys.executable, "-c", HANGS, str(path), ":".join(filter(None, sys.path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "holds\n"
        done = kill(settings.folder, "it hangs", flatten=True)
        engine.kill()
    assert done.is_done, done
    assert done.seconds < 2.0

    async def look():
        broker = PaperBroker(Toy(), path=path)
        await broker.connect()
        return await broker.snapshot()

    snapshot = asyncio.run(look())
    held = {each.symbol: each.quantity for each in snapshot.positions}
    assert held.get(SYMBOL, Decimal(0)) == 0
    assert snapshot.open_orders == ()
