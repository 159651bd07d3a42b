"""Where alerts go: anything that takes a text. `apprise` knows some 170 services.

An address holds a token or a password, so the settings name only where it is found: an environment
variable or a file. It is not part of any message of ours.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxtrade.specs import JaxtradeError


class ChannelError(Exception):
    """A message was not taken; `retry_s` is when to try again where the service said so."""

    def __init__(self, text: str, retry_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_s = retry_s


class Channel(Protocol):
    """One way to reach people."""

    def send(self, title: str, text: str, level: str) -> None:
        """Deliver a message, or raise ChannelError; may take as long as it takes."""


class AppriseChannel:
    """A service that apprise has an address for: Telegram, WhatsApp, mail, a webhook."""

    def __init__(self, name: str, address: str) -> None:
        """Check the address; nothing is sent.

        Raises:
            JaxtradeError: apprise is not installed, or cannot make anything of the address.
        """
        try:
            apprise: Any = importlib.import_module("apprise")
        except ImportError as error:
            raise JaxtradeError("alerts need apprise: pip install 'jaxtrade[notify]'") from error
        self._types = {
            "info": apprise.NotifyType.INFO,
            "warning": apprise.NotifyType.WARNING,
            "error": apprise.NotifyType.FAILURE,
            "critical": apprise.NotifyType.FAILURE,
        }
        self._apprise = apprise.Apprise()
        if not self._apprise.add(address):
            raise JaxtradeError(
                f"alerts.channels.{name}: apprise cannot make anything of that address; see "
                "https://github.com/caronc/apprise for how each service's is written"
            )

    def send(self, title: str, text: str, level: str) -> None:
        """Deliver a message, or raise ChannelError."""
        try:
            taken = self._apprise.notify(body=text, title=title, notify_type=self._types[level])
        except Exception as error:  # whatever a plug-in raises; its text may hold the address
            raise ChannelError(f"apprise raised {type(error).__name__}") from error
        if not taken:
            raise ChannelError("the service did not take it")


def address(name: str, source: str, environment: Mapping[str, str] = os.environ) -> str:
    """The address of a channel from where the settings say that it is: env:VARIABLE or file:PATH.

    Raises:
        JaxtradeError: the variable is not set, or the file cannot be read or is empty.
    """
    kind, _, place = source.partition(":")
    where = f"alerts.channels.{name}: {place}"
    if kind == "env":
        found = environment.get(place, "").strip()
        if not found:
            raise JaxtradeError(f"{where} is not set: give the environment variable")
        return found
    try:
        found = Path(place).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise JaxtradeError(f"{where}: the file cannot be read") from error
    if not found:
        raise JaxtradeError(f"{where}: the file is empty")
    return found
