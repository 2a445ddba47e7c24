"""The client of a request, and slots shared fairly among clients, so that none can block the others."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from diffrgen.errors import DataError


class BusyError(DataError):
    """Too many requests wait."""


BUSY = "The service is busy with other images; please try again in a minute."


def client_name(host: str | None) -> str:
    """Return what a client's requests are counted under: its IPv4 address, or its IPv6 network of 64 bits.

    >>> [client_name(host) for host in ("10.0.0.7", "2001:db8::1:2:3", "::ffff:10.0.0.7", None)]
    ['10.0.0.7', '2001:db8::/64', '10.0.0.7', 'unknown']
    """
    if host is None:
        return "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))


def client_of(scope: Mapping[str, Any]) -> str:
    """Return the name of the client of an ASGI scope."""
    return client_name(scope["client"][0] if scope.get("client") else None)


@dataclass(eq=False, frozen=True)
class _Waiting:
    client: str
    turn: asyncio.Future[None]


class Turns:
    """A few places that requests take in turn; used on one event loop.

    places: requests at once; per_client: of them, those of one client; waiting: requests that wait.

    A free place goes to the client with the fewest places, among those to the one that was served least recently. Where
    all waiting places are taken, a request displaces the last one of the client that has most of them.
    """

    def __init__(self, places: int, *, per_client: int, waiting: int) -> None:
        self._places, self._per_client, self._most_waiting = places, per_client, waiting
        self._taken: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self._served: dict[str, int] = {}
        self._turns = 0

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Hold a slot for `client` within the block; BusyError, with a message for the client, if too many requests wait."""
        mine = _Waiting(client, asyncio.get_running_loop().create_future())
        self._make_room(client)
        self._waiting.append(mine)
        self._hand_out()
        try:
            await mine.turn
        except BaseException:
            # Displaced, or the client disconnected, possibly just as its turn came.
            if mine in self._waiting:
                self._waiting.remove(mine)
            elif mine.turn.done() and not mine.turn.cancelled() and mine.turn.exception() is None:
                self._give_back(client)
            raise
        try:
            yield
        finally:
            self._give_back(client)

    def _make_room(self, client: str) -> None:
        if len(self._waiting) < self._most_waiting or self._next(client) is not None:
            return
        counts = Counter(each.client for each in self._waiting)
        greediest, most = max(counts.items(), key=lambda item: item[1])
        if counts[client] + 1 >= most:
            raise BusyError(BUSY)
        last = [each for each in self._waiting if each.client == greediest][-1]
        self._waiting.remove(last)
        last.turn.set_exception(BusyError(BUSY))

    def _next(self, *more: str) -> str | None:
        """The client whose turn it is, out of those that wait and `more`; None if there is no place for any."""
        if self._taken.total() >= self._places:
            return None
        clients = dict.fromkeys([each.client for each in self._waiting] + [*more])
        able = [client for client in clients if self._taken[client] < self._per_client]
        return min(able, key=lambda client: (self._taken[client], self._served.get(client, -1)), default=None)

    def _hand_out(self) -> None:
        while self._waiting and (client := self._next()) is not None:
            first = next(each for each in self._waiting if each.client == client)
            self._waiting.remove(first)
            self._taken[client] += 1
            self._turns += 1
            self._served[client] = self._turns
            if first.turn.cancelled():
                self._give_back(client)
            else:
                first.turn.set_result(None)

    def _give_back(self, client: str) -> None:
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]
        present = {each.client for each in self._waiting} | set(self._taken)
        self._served = {name: turn for name, turn in self._served.items() if name in present}
        self._hand_out()
