"""A control port whose engine listens in a thread of its own, as another process would."""

import asyncio
import contextlib
import threading

from jaxtrade.live.control import FILE, ControlServer


@contextlib.contextmanager
def listening(folder, engine):
    """Serve an engine's port in a folder; afterwards nothing of it is left there."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    server = ControlServer(folder, engine)

    def run():
        loop.run_until_complete(server.start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(server.stop())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(5)
    yield engine
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    assert not (folder / FILE).exists()
