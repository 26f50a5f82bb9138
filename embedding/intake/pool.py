"""Connections kept for the next download from the same place: which, how many, and for how long.

A place is scheme, host and port. The peer of a kept connection was checked when it was dialled, and its
certificate was checked for that host, so that using it again needs no lookup; it never serves another host,
even one at the same address. The URL is judged anew for every request, and so is the peer's address, which
costs microseconds.

Threat: an answer followed by bytes that would be taken for the next answer. A connection is kept only if its
last answer left it clean (see `answer`), and used again only if nothing has arrived on it since. What arrives
between that look and the request cannot be told apart, but can only harm URLs of the same host.

Nothing watches over idle connections: what has waited too long is closed when the pool is next used.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable

    from embedding.intake.connection import PinnedConnection
    from embedding.intake.limits import FetchLimits
    from embedding.intake.urls import Place


@dataclass(frozen=True, slots=True)
class _Idle:
    connection: PinnedConnection
    since_s: float


class Pool:
    """Idle connections, bounded by *limits*; safe to share between threads."""

    def __init__(
        self,
        limits: FetchLimits,
        is_allowed: Callable[[str], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep connections to what *is_allowed* by *clock*, which tests replace."""
        self._limits = limits
        self._is_allowed = is_allowed
        self._clock = clock
        self._idle: list[_Idle] = []  # the longest idle first
        self._lock = threading.Lock()
        self._is_closed = False

    def take(self, place: Place) -> PinnedConnection | None:
        """Return the connection to *place* that was kept last, and forget it; None if none is fit for use."""
        while (connection := self._pop(place)) is not None:
            if self._is_allowed(connection.address) and connection.is_quiet():
                return connection
            connection.close()
        return None

    def keep(self, connection: PinnedConnection) -> None:
        """Keep *connection* for its place if it is clean, else close it; the oldest make room."""
        if not connection.is_clean():
            connection.close()
            return
        with self._lock:
            self._idle.append(_Idle(connection, self._clock()))
            closing = self._make_room(connection.place)
        for idle in closing:
            idle.connection.close()

    def close(self) -> None:
        """Close all, and keep none from now on."""
        with self._lock:
            self._is_closed = True
            closing, self._idle = self._idle, []
        for idle in closing:
            idle.connection.close()

    def _pop(self, place: Place) -> PinnedConnection | None:
        with self._lock:
            closing = self._remove(self._expired())
            newest = self._remove(self._of(place)[-1:])
        for idle in closing:
            idle.connection.close()
        return newest[0].connection if newest else None

    def _make_room(self, place: Place) -> list[_Idle]:
        """Remove what is too old or too many; the lock is held, and nothing is closed under it."""
        limit = 0 if self._is_closed else self._limits.max_idle_connections
        removed = self._remove(self._expired())
        removed += self._remove(_all_but_last(self._limits.max_idle_per_host, self._of(place)))
        return removed + self._remove(_all_but_last(limit, self._idle))

    def _expired(self) -> list[_Idle]:
        oldest_s = self._clock() - self._limits.max_idle_s
        return [idle for idle in self._idle if idle.since_s < oldest_s]

    def _of(self, place: Place) -> list[_Idle]:
        return [idle for idle in self._idle if idle.connection.place == place]

    def _remove(self, chosen: list[_Idle]) -> list[_Idle]:
        self._idle = [idle for idle in self._idle if idle not in chosen]
        return chosen


def _all_but_last(count: int, idle: list[_Idle]) -> list[_Idle]:
    return idle[: max(len(idle) - count, 0)]
