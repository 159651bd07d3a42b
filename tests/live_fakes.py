"""A broker in a file, for processes that must not load the paper broker, and a door to an engine.

The broker fills at once. Its state is the orders that work and the positions that are held. What
goes wrong is listed in `faults`, one for each request: not_connected, hangs, incomplete, error.
`slow_closes` counts closing orders that stay where they are. With a clock, every request takes a
second of it.
"""

import asyncio
import contextlib
import json
import pathlib
import threading
from decimal import Decimal

from jaxtrade.live.brokers.base import (
    Capabilities,
    NotConnectedError,
    OpenOrder,
    Position,
    Snapshot,
)
from jaxtrade.live.control import ControlServer


class FileBroker:
    capabilities = Capabilities()

    def __init__(self, path, role="engine", faults=(), clock=None):
        self.path = pathlib.Path(path)
        self.faults = list(faults)
        self.clock = clock
        self.asked = []
        self.is_up = False
        self.slow_closes = 0
        if not self.path.exists():
            self.hold()

    def hold(self, orders=(), **positions):
        self.path.write_text(json.dumps({"orders": list(orders), "positions": positions}))

    def read(self):
        return json.loads(self.path.read_text())

    async def _fault(self, name):
        self.asked.append(name)
        if self.clock is not None:
            self.clock.advance(1_000_000_000)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "not_connected":
            self.is_up = False
            raise NotConnectedError("socket closed")
        if fault == "hangs":
            await asyncio.sleep(3600)
        if fault == "error":
            raise ValueError("a defect of the adapter")
        return fault

    async def connect(self):
        await self._fault("connect")
        self.is_up = True

    async def disconnect(self):
        self.is_up = False

    def is_connected(self):
        return self.is_up

    async def cancel_all_orders(self, symbol=None):
        await self._fault("cancel")
        self.hold(**self.read()["positions"])

    async def close_all_positions(self):
        await self._fault("close")
        state = self.read()
        if self.slow_closes:  # the closing orders work, and fill only when it is asked again
            self.slow_closes -= 1
            self.hold([f"close-{symbol}" for symbol in state["positions"]], **state["positions"])
        else:
            self.hold(state["orders"])

    async def snapshot(self):
        fault = await self._fault("snapshot")
        state = self.read()
        return Snapshot(
            at_ns=0,
            equity=1000.0,
            cash=1000.0,
            positions=tuple(
                Position(symbol=symbol, quantity=Decimal(quantity), price=1.0)
                for symbol, quantity in state["positions"].items()
            ),
            open_orders=tuple(
                OpenOrder(cid=cid, broker_id=cid, symbol="SPY", filled=Decimal(0))
                for cid in state["orders"]
            ),
            is_complete=fault != "incomplete",
        )


def make(settings, *, role):
    return FileBroker(settings.broker.options["path"], role)


@contextlib.contextmanager
def served(folder, controls):
    """Somebody listens in a folder, in a thread of its own, as another process would."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    server = ControlServer(folder, controls)

    def run():
        loop.run_until_complete(server.start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(server.stop())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(5)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
