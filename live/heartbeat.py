"""Signs of life: what an engine sends its supervisor, and how the supervisor hears it.

A beat is one datagram to 127.0.0.1: it costs some microseconds, never waits and needs no disk. It
is sent from the engine's own loop, so that a loop which hangs is silent, whatever else still runs.
"""

import asyncio
import hmac
import os
import secrets
import socket
from collections.abc import Callable, Mapping

PLACE = "JAXTRADE_HEARTBEAT"
"""Environment variable with port:token."""

_LAST = b" last"
"""Behind the token in a beat that says so."""


class Heartbeat:
    """The engine's side. Without a supervisor it does nothing."""

    def __init__(self, place: str | None = None) -> None:
        """`place` is port:token, by default what the supervisor left in the environment."""
        place = os.environ.get(PLACE, "") if place is None else place
        port, _, token = place.partition(":")
        self._token = token.encode()
        self._socket: socket.socket | None = None
        if port.isdecimal():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(("127.0.0.1", int(port)))

    def beat(self) -> bool:
        """Say that the loop turns, at least once a second; false where nobody can hear it."""
        return self._send(self._token)

    def beat_last(self) -> bool:
        """Say that it was told to end, so that it is not started again, however it ends."""
        return self._send(self._token + _LAST)

    def _send(self, beat: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(beat)
        except OSError:  # the supervisor is gone, or the machine is out of buffers
            return False
        return True

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Listener(asyncio.DatagramProtocol):
    """The supervisor's side of all its processes; call `listen` inside its loop."""

    def __init__(self) -> None:
        self._heard: dict[bytes, Callable[[], None]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def listen(self) -> None:
        """Take a port of the system's choice."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )

    def expect(
        self, heard: Callable[[], None], heard_last: Callable[[], None]
    ) -> Mapping[str, str]:
        """The environment of a process whose beats call `heard`, and `heard_last` once it was told
        to end.
        """
        if self._transport is None:
            raise RuntimeError("expect: call listen first")
        token = secrets.token_urlsafe(16)
        self._heard |= {token.encode(): heard, token.encode() + _LAST: heard_last}
        port = self._transport.get_extra_info("sockname")[1]
        return {PLACE: f"{port}:{token}"}

    def forget(self, environment: Mapping[str, str]) -> None:
        """Expect no more of the process with this environment."""
        token = environment[PLACE].partition(":")[2].encode()
        for beat in (token, token + _LAST):
            self._heard.pop(beat, None)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """A beat of whoever knows one of the tokens."""
        for beat, heard in self._heard.items():
            if hmac.compare_digest(beat, data):
                heard()

    def error_received(self, exc: Exception) -> None:
        """Nothing is sent from here, so nothing is lost."""

    def close(self) -> None:
        """Give the port back."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
