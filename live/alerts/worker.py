"""The alert worker: a process of its own, so that no service on the net ever delays trading.

    python -m jaxtrade.live.alerts.worker FOLDER

It reads the journal once a second, decides what is told (`throttle`), and hands it to every channel
in a thread of that channel's own: one that hangs or refuses holds up nobody else, and is tried
again later for as long as it takes.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxtrade.live.alerts.channels import AppriseChannel, Channel, ChannelError, address
from jaxtrade.live.alerts.outbox import Outbox
from jaxtrade.live.logs import start_logging
from jaxtrade.live.sections import AlertSettings
from jaxtrade.live.settings import LiveSettings, read
from jaxtrade.specs import JaxtradeError

LAST_WORD_S = 3.0
"""How long what is waiting may take when the worker is told to end."""

log = logging.getLogger("jaxtrade.alerts")


class Worker:
    """Collects in the caller's thread, delivers in one thread for each channel.

    now: UTC in nanoseconds; clean: takes secrets out of a text before it leaves.
    """

    def __init__(
        self,
        folder: Path | str,
        settings: AlertSettings,
        channels: Mapping[str, Channel],
        *,
        title: str = "jaxtrade",
        pause_s: float = 1.0,
        now: Callable[[], int] = time.time_ns,
        clean: Callable[[str], str] = str,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._channels = channels
        self._title = title
        self._pause_s = pause_s
        self._now = now
        self._clean = clean
        self._ending = threading.Event()
        self._news = {name: threading.Event() for name in channels}

    def stop(self) -> None:
        """Collect once more, deliver what can be delivered soon, and end."""
        self._ending.set()

    def run(self) -> None:
        """Work until `stop`."""
        threads = [
            threading.Thread(target=self._deliver, args=(name,), name=f"alerts-{name}", daemon=True)
            for name in self._channels
        ]
        with Outbox(self._folder, self._settings, tuple(self._channels)) as outbox:
            for thread in threads:
                thread.start()
            parent = os.getppid()  # whose next worker this one must not live to meet
            while not self._ending.is_set() and os.getppid() == parent:
                self._collect(outbox)
                self._ending.wait(self._pause_s)
            self._ending.set()
            self._collect(outbox)
        end = time.monotonic() + LAST_WORD_S
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0.0))

    def _collect(self, outbox: Outbox) -> None:
        try:
            made = outbox.collect(self._now())
        except Exception as error:  # a full disk, say: it is tried again
            log.warning("alerts cannot be collected", extra={"why": str(error)})
            return
        for level, text in made:
            log.info("alert", extra={"alert_level": level, "alert": text})
        for news in self._news.values():
            news.set()

    def _deliver(self, name: str) -> None:
        """Send one channel's messages, oldest first, until the worker ends."""
        with Outbox(self._folder, self._settings) as outbox:
            while True:
                is_last = self._ending.is_set()
                self._news[name].clear()
                while self._send_next(name, outbox):
                    pass
                if is_last:
                    return
                self._news[name].wait(self._pause_s)

    def _send_next(self, name: str, outbox: Outbox) -> bool:
        """Send a channel's next message; whether there may be another now."""
        try:
            message = outbox.next_message(name, self._now())
            if message is None:
                return False
            try:
                title = f"{self._title} {message.level}"
                self._channels[name].send(title, self._clean(message.text), message.level)
            except ChannelError as error:
                pause = outbox.failed(name, message, self._now(), error.retry_s)
                log.warning(
                    "not delivered", extra={"channel": name, "why": str(error), "retry_s": pause}
                )
                return False
            outbox.delivered(name, message)
        except Exception as error:  # a defect of a channel, or the disk: later
            log.warning("not delivered", extra={"channel": name, "why": type(error).__name__})
            return False
        return True


def open_channels(settings: AlertSettings, hide: Callable[[str], None]) -> dict[str, Channel]:
    """The channels that can be had; `hide` is told each address before it is used.

    One that cannot be had is reported and left out: the others are all the more important.
    """
    found: dict[str, Channel] = {}
    for name, source in settings.channels.items():
        try:
            place = address(name, source)
            hide(place)
            found[name] = AppriseChannel(name, place)
        except JaxtradeError as error:
            log.error("no such channel", extra={"channel": name, "why": str(error)})
    return found


def serve(settings: LiveSettings) -> None:
    """Run the worker of an account until SIGTERM."""
    with start_logging(settings.folder, "alerts", settings.logs) as logs:
        channels = open_channels(settings.alerts, logs.redaction.hide)
        worker = Worker(
            settings.folder,
            settings.alerts,
            channels,
            title=f"jaxtrade {settings.name}",
            clean=logs.redaction.text,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.run()


def main() -> None:
    """Serve the account of the folder that is the only argument."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m jaxtrade.live.alerts.worker FOLDER")
    try:
        serve(read(sys.argv[1]))
    except JaxtradeError as error:
        sys.exit(f"jaxtrade: {error}")


if __name__ == "__main__":
    main()
