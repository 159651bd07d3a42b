"""Keeps secrets out of what is written: logs, alerts, messages.

What is hidden: values that were told to `hide`, among them those of environment variables with a
telling name; and what looks like a secret wherever it stands, such as the user part and the path of
an address of a notifier (`tgram://token/chat`), a password in an address, a bearer token, a value
behind `password=`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "***"

SHORTEST = 6
"""Characters of a value that is hidden wherever it stands; a shorter one would hide half a log."""

TELLING = re.compile(r"(TOKEN|SECRET|PASSW|_URLS?$|_KEY$|APIKEY|CREDENTIAL)", re.IGNORECASE)
"""Names of environment variables that hold secrets."""

_PATTERNS = (
    # a notifier's address holds its secrets in any part; of the web's, those before the @
    (
        re.compile(r"\b(?!https?|file|wss?)([a-z][a-z0-9+.-]{1,20})://[^\s\"'<>]+"),
        rf"\1://{HIDDEN}",
    ),
    (re.compile(r"\b(https?|wss?)://[^\s/@\"']+@"), rf"\1://{HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(bot)\d{6,}:[\w-]{20,}"), rf"\1{HIDDEN}"),  # in a path of Telegram's
    (
        re.compile(
            r"(?i)((?:password|passwd|secret|token|api_?key|authorization)[\"']?\s*[=:]\s*[\"']?)"
            r"(?!bearer\b|basic\b)[^\s\"',;&}]+"
        ),
        rf"\1{HIDDEN}",
    ),
)


class Redaction:
    """Hides secrets in texts and in whatever is made of texts."""

    def __init__(self, secrets: Iterable[str] = (), environment: Mapping[str, str] = os.environ):
        """Hide `secrets`, and what variables of `environment` with a telling name hold."""
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.hide(*secrets)
        self.hide(*(value for name, value in environment.items() if TELLING.search(name)))

    def hide(self, *secrets: str) -> None:
        """Hide these from now on, also in the form that they have in an address."""
        for secret in secrets:
            for text in (secret.strip(), quote(secret.strip(), safe="")):
                if len(text) >= SHORTEST:
                    self._secrets.add(text)
        longest_first = sorted(self._secrets, key=len, reverse=True)
        if longest_first:
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text

    def tree(self, value: Any) -> Any:
        """Mappings, lists and texts without secrets; of a telling key the whole value is hidden."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                key: HIDDEN
                if isinstance(item, str) and item and TELLING.search(str(key))
                else self.tree(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.tree(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))
