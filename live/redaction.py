"""Keeps secrets out of what is written: logs, alerts, messages.

What is hidden: values that were told to `hide`, among them those of environment variables with a
telling name; and what looks like a secret wherever it stands, such as the address of a notifier
(`tgram://token/chat`), a password in an address, a bearer token, a value behind `password=`.

A line of a log costs some ten microseconds: the thread that writes it shares the interpreter with
the one that trades.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

HIDDEN = "***"

SHORTEST = 6
"""Characters of a value that is hidden wherever it stands; a shorter one would hide half a log."""

TELLING = re.compile(r"(TOKEN|SECRET|PASSW|_URLS?$|_KEY$|APIKEY|CREDENTIAL)", re.IGNORECASE)
"""Names of environment variables that hold secrets."""

_VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"',;&}\]]+)"""

_OUTSIDE_ESCAPE = "".join(rf"(?<![^\\]\\u[0-9a-f]{{{digits}}})" for digits in range(4))
"""Not inside JSON's backslash, u and four digits, which may look like a secret in part."""


def _hidden(match: re.Match[str]) -> str:
    """A named value hidden, in the quotes that it had."""
    name, value = match.groups()
    mark = value[0] if value[0] in "\"'" else ""
    return f"{name}{mark}{HIDDEN}{mark}"


# Each with texts of which one has to be there, in lower case: to look for them costs next to
# nothing.
_PATTERNS = (
    # a notifier's address holds its secrets in any part; of the web's, those before the @
    (
        ("://",),
        re.compile(r"""\b(?!https?:|file:|wss?:)([a-z][a-z0-9+.-]{1,20})://[^\s"'<>\\]+"""),
        rf"\1://{HIDDEN}",
    ),
    (("://",), re.compile(r"""\b(https?|wss?)://[^\s/@"']+@"""), rf"\1://{HIDDEN}@"),
    (
        ("bearer ", "basic "),
        re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"),
        rf"\1 {HIDDEN}",
    ),
    (("/bot",), re.compile(r"/(bot)\d{6,}:[\w-]{20,}"), rf"/\1{HIDDEN}"),  # a path of Telegram's
    (
        ("passw", "secret", "token", "apikey", "api_key", "authorization", "credential"),
        re.compile(
            r"(?i)((?:password|passwd|secret|token|api_?key|authorization|credentials?)"
            rf"""["']?\s*[=:]\s*)(?!bearer\b|basic\b)({_VALUE})"""
        ),
        _hidden,
    ),
)


class Redaction:
    """Hides secrets in texts, those of JSON included."""

    def __init__(self, secrets: Iterable[str] = (), environment: Mapping[str, str] = os.environ):
        """Hide `secrets`, and what variables of `environment` with a telling name hold."""
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.hide(*secrets)
        self.hide(*(value for name, value in environment.items() if TELLING.search(name)))

    def hide(self, *secrets: str) -> None:
        """Hide these from now on, also as they are written in an address or in JSON."""
        for secret in map(str.strip, secrets):
            for text in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
                if len(text) >= SHORTEST:
                    self._secrets.add(text)
        longest_first = sorted(self._secrets, key=len, reverse=True)
        if longest_first:
            known = "|".join(map(re.escape, longest_first))
            self._pattern = re.compile(f"{_OUTSIDE_ESCAPE}(?:{known})")

    def text(self, text: str) -> str:
        """The text without secrets; JSON stays JSON."""
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        lower = text.lower()
        for signs, pattern, instead in _PATTERNS:
            if any(sign in lower for sign in signs):
                text = pattern.sub(instead, text)
        return text
