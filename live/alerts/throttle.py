"""How often people are told: once of the same, not too much in an hour, not in the night.

Nothing is lost by it: what is the same is counted and told with its number when `repeat_s` is over,
what is too much or comes in quiet hours is held and told together later. Critical alerts wait for
neither the hour nor the night. All of it is kept in the outbox, so a restart changes nothing.
"""

import sqlite3
import zoneinfo
from datetime import UTC, datetime, time
from typing import NamedTuple

from jaxtrade.live.sections import LEVELS, AlertSettings

HOUR_NS = 3600 * 10**9
MOST_LINES = 20
"""Of one message that tells what was held."""
LONGEST = 1500
"""Characters of a message; some services take no more."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS recent (
    key TEXT PRIMARY KEY, until_ns INTEGER NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL,
    more INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS held (
    number INTEGER PRIMARY KEY, level TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sent (at_ns INTEGER NOT NULL);
"""


class Alert(NamedTuple):
    """An alert as its source keeps it."""

    level: str
    text: str
    key: str
    at_ns: int


class Throttle:
    """Decides on each alert, inside the transaction of whoever asks."""

    def __init__(self, db: sqlite3.Connection, settings: AlertSettings) -> None:
        self._db = db
        self._settings = settings
        start, _, end = settings.quiet.partition("-")
        self._quiet = (time.fromisoformat(start), time.fromisoformat(end)) if end else None
        self._zone = zoneinfo.ZoneInfo(settings.time_zone)
        db.executescript(_SCHEMA)

    def accept(self, alert: Alert, now_ns: int) -> list[tuple[str, str]]:
        """What is to be sent now because of an alert: level and text, one or none.

        Ask `due` of the same moment first.
        """
        level = self._settings.rules.get(alert.key.partition(":")[0], alert.level)
        if level == "off" or _rank(level) < _rank(self._settings.level):
            return []
        key = alert.key or alert.text
        row = self._db.execute("SELECT until_ns FROM recent WHERE key = ?", (key,)).fetchone()
        if row is not None and now_ns < row[0]:
            self._db.execute("UPDATE recent SET more = more + 1 WHERE key = ?", (key,))
            return []
        self._remember(key, level, alert.text, now_ns)
        return self._admit(level, alert.text, now_ns)

    def due(self, now_ns: int) -> list[tuple[str, str]]:
        """What is to be sent because time has passed."""
        made = []
        over = "SELECT key, level, text, more FROM recent WHERE until_ns <= ?"
        for key, level, text, more in self._db.execute(over, (now_ns,)).fetchall():
            if not more:
                self._db.execute("DELETE FROM recent WHERE key = ?", (key,))
                continue
            self._remember(key, level, text, now_ns)
            made += self._admit(level, f"{text} ({more} more)", now_ns)
        return made + self._released(now_ns)

    def _remember(self, key: str, level: str, text: str, now_ns: int) -> None:
        until_ns = now_ns + int(self._settings.repeat_s * 1e9)
        row = (key, until_ns, level, text)
        self._db.execute("INSERT OR REPLACE INTO recent VALUES (?, ?, ?, ?, 0)", row)

    def _admit(self, level: str, text: str, now_ns: int) -> list[tuple[str, str]]:
        """The message, or nothing where it has to wait."""
        if level != "critical" and (self._is_quiet(now_ns) or self._is_full(now_ns)):
            self._db.execute("INSERT INTO held (level, text) VALUES (?, ?)", (level, text))
            return []
        return [self._sent(level, text, now_ns)]

    def _released(self, now_ns: int) -> list[tuple[str, str]]:
        """What was held, in one message, once it may be sent."""
        if self._is_quiet(now_ns) or self._is_full(now_ns):
            return []
        rows = self._db.execute("SELECT level, text FROM held ORDER BY number").fetchall()
        if not rows:
            return []
        self._db.execute("DELETE FROM held")
        level = max((each[0] for each in rows), key=_rank)
        lines = [f"{each}: {text}" for each, text in rows[:MOST_LINES]]
        if len(rows) > MOST_LINES:
            lines.append(f"and {len(rows) - MOST_LINES} more, see the log")
        text = "\n".join([f"{len(rows)} alerts were held", *lines])
        return [self._sent(level, text if len(rows) > 1 else rows[0][1], now_ns)]

    def _sent(self, level: str, text: str, now_ns: int) -> tuple[str, str]:
        self._db.execute("INSERT INTO sent VALUES (?)", (now_ns,))
        self._db.execute("DELETE FROM sent WHERE at_ns <= ?", (now_ns - HOUR_NS,))
        return level, text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

    def _is_full(self, now_ns: int) -> bool:
        """Whether the hour has had its messages."""
        query = "SELECT count(*) FROM sent WHERE at_ns > ?"
        count = self._db.execute(query, (now_ns - HOUR_NS,)).fetchone()[0]
        return bool(count >= self._settings.max_per_hour)

    def _is_quiet(self, now_ns: int) -> bool:
        """Whether it is the time of day in which only what is critical is sent."""
        if self._quiet is None:
            return False
        start, end = self._quiet
        now = datetime.fromtimestamp(now_ns / 1e9, UTC).astimezone(self._zone).time()
        return start <= now < end if start <= end else now >= start or now < end


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)
