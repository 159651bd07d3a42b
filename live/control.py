"""Talking to a running engine: one line of JSON each way, on this machine only.

The server lives in the engine's loop, listens on a port of 127.0.0.1 that the system chooses, and
writes port and token to `control.json`, which only the user may read. Who can read that file may
command the engine; nobody else may.

    server = ControlServer(folder, engine)               # in the engine
    await server.start()
    ask(folder, "pause", agent="spy", reason="earnings")  # in any other process
"""

import asyncio
import contextlib
import hmac
import inspect
import json
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxtrade.live.heartbeat import Heartbeat
from jaxtrade.specs import JaxtradeError, unknown_name
from jaxtrade.storage import finite, write_atomic

FILE = "control.json"
MAX_LINE = 1 << 16
"""Bytes of a request; a status may be longer."""
PATIENCE_S = 5.0
"""How long the server waits for a request to be complete."""
MAX_CLIENTS = 32

COMMANDS: dict[str, dict[str, type]] = {
    "status": {},
    "pause": {"agent": str, "reason": str},
    "resume": {"agent": str, "reason": str},
    "kill": {"reason": str, "flatten": bool},
    "flatten": {"reason": str},
    "rearm": {"reason": str},
    "set": {"changes": dict, "by": str},
    "swap": {"agent": str, "model": str},
    "rollback": {"agent": str, "reason": str},
    "stop": {"reason": str},
}
"""What can be asked, with the arguments of each; an agent "" is all of them."""

Reply = Mapping[str, Any] | None
log = logging.getLogger(__name__)


class Controls(Protocol):
    """What a server asks of the engine; a JaxtradeError is an answer, in one line."""

    def status(self) -> Reply:
        """The state of everything; see `jaxtrade.live.view`."""

    def command(self, name: str, arguments: Mapping[str, Any]) -> Reply | Awaitable[Reply]:
        """Do one of `COMMANDS`, other than status; the arguments are complete and of their type."""


class NotRunningError(JaxtradeError):
    """No engine answers in this folder."""


class ControlServer:
    """The engine's ear."""

    def __init__(self, folder: Path | str, controls: Controls) -> None:
        self._path = Path(folder) / FILE
        self._controls = controls
        self._token = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None
        self._clients = 0

    async def start(self) -> None:
        """Listen, then say where.

        Raises:
            JaxtradeError: no port, or the file cannot be written.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, host="127.0.0.1", port=0, limit=MAX_LINE
            )
        except OSError as error:
            raise JaxtradeError(f"cannot listen on 127.0.0.1: {error.strerror}") from error
        port = self._server.sockets[0].getsockname()[1]
        content = {"port": port, "token": self._token, "pid": os.getpid()}
        write_atomic(self._path, json.dumps(content), mode=0o600)

    async def stop(self) -> None:
        """Listen no more; the file goes if it is still this server's."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        with contextlib.suppress(OSError, ValueError):
            if json.loads(self._path.read_bytes()).get("token") == self._token:
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its reply."""
        self._clients += 1
        try:
            if self._clients > MAX_CLIENTS:
                raise JaxtradeError("too many at once: ask again")
            async with asyncio.timeout(PATIENCE_S):
                line = await reader.readuntil(b"\n")
            reply = {"result": finite(await self._answer(line))}
        except JaxtradeError as error:
            reply = {"error": str(error)}
        except (TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            reply = {"error": f"no request: one line of JSON, at most {MAX_LINE} bytes"}
        except Exception as error:  # a defect of ours must not end the engine
            log.exception("control: a command failed")
            reply = {"error": f"unexpected {type(error).__name__}: {error}"}
        finally:
            self._clients -= 1
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                writer.write(json.dumps(reply, default=str).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> Reply:
        """What the engine says to a request."""
        request = json.loads(line)
        if not isinstance(request, dict):
            raise JaxtradeError("a request is a mapping with token, command and arguments")
        token = str(request.get("token", ""))
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise JaxtradeError("the token is not that of control.json")
        name, arguments = request.get("command"), request.get("arguments", {})
        checked = _checked(name, arguments)
        if name == "status":
            return self._controls.status()
        result = self._controls.command(str(name), checked)
        result = await result if inspect.isawaitable(result) else result
        if name == "stop":  # should the end hang, the supervisor is not to start it again
            with contextlib.closing(Heartbeat()) as heart:
                heart.beat_last()
        return result


def _checked(name: object, arguments: object) -> dict[str, Any]:
    """The arguments of a command, complete and of their type."""
    if not isinstance(name, str) or name not in COMMANDS:
        raise unknown_name("command", str(name), COMMANDS)
    wanted = COMMANDS[name]
    if not isinstance(arguments, dict) or set(arguments) != set(wanted):
        raise JaxtradeError(f"{name}: give {', '.join(wanted) or 'no arguments'}")
    for key, kind in wanted.items():
        if type(arguments[key]) is not kind:
            raise JaxtradeError(f"{name}: {key} is {arguments[key]!r}: give a {kind.__name__}")
    return arguments


def ask(
    folder: Path | str, command: str, *, timeout_s: float = 5.0, **arguments: Any
) -> dict[str, Any]:
    """What a running engine answers; blocks for at most `timeout_s`.

    Raises:
        NotRunningError: none runs there, or it does not answer.
        JaxtradeError: the engine refused, or there is no such command.
    """
    _checked(command, arguments)
    port, token = _address(Path(folder))
    request = {"token": token, "command": command, "arguments": arguments}
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as file:
                reply = json.loads(file.readline())
    except TimeoutError as error:
        raise NotRunningError(f"{folder}: the engine does not answer in {timeout_s:g} s") from error
    except (OSError, ValueError) as error:
        raise NotRunningError(f"{folder}: no engine answers there") from error
    if "error" in reply:
        raise JaxtradeError(str(reply["error"]))
    return dict(reply["result"] or {})


def _address(folder: Path) -> tuple[int, str]:
    """Port and token of the engine of a folder."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        return int(content["port"]), str(content["token"])
    except OSError as error:
        raise NotRunningError(f"{folder}: no engine runs there") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotRunningError(f"{folder / FILE}: cannot be read") from error
