"""What can go wrong between a process and the server, by a seed: delays, losses, crashes before and after every call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from noria.errors import BrokerUnavailable
from noria.limits import ANSWER_SECONDS
from noria.testing.loop import NOWHERE, Process, VirtualLoop
from noria.testing.wire import Wire, perform, settle

LONGEST_STALL = 12.0  # more than two leases
LONGEST_LAG = 2.0


class Weather:
    """Chances of each fault; `calm` ends them all, `spares` says whether none may happen just now. `trace` is told of
    everything that happens."""

    def __init__(
        self, chance: random.Random, trace: Callable[[str], None], spares: Callable[[], bool] = lambda: False, stale: float = 0.0
    ) -> None:  # fmt: skip
        self.chance, self.trace, self.spares, self.calm, self.stale = chance, trace, spares, False, stale
        self.slowest = chance.choice([0.001, 0.01, 0.1])
        self.crash = chance.choice([0.0, 0.0, 0.002, 0.01])
        self.lost_request = chance.choice([0.0, 0.01])
        self.lost_answer = chance.choice([0.0, 0.01])
        self.lost_word = chance.choice([0.0, 0.05, 0.3])  # acknowledgements, renewals, news: nobody answers them
        self.stall = chance.choice([0.0, 0.003, 0.02])  # a connection that stands still: what is under way arrives much later
        self.late = chance.choice([0.0, 0.05])  # deliveries and news that come after others

    def happens(self, probability: float) -> bool:
        return not self.calm and probability > 0 and self.chance.random() < probability and not self.spares()

    def delay(self) -> float:
        return self.chance.random() * (0.001 if self.calm else self.slowest)


class FaultyWire(Wire):
    """A connection in this weather. `mortal`: its process may crash at a call."""

    def __init__(self, weather: Weather, process: Process, mortal: bool = True) -> None:
        super().__init__()
        self.weather, self.process, self.mortal = weather, process, mortal
        self._arrival = 0.0

    def request(self, name: str, operation: Callable[[], Any]) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self.loop.create_future()
        answer.add_done_callback(lambda a: None if a.cancelled() else a.exception() and None)
        if self.is_closed:
            answer.set_exception(BrokerUnavailable("the connection is closed"))
        elif not self.is_cut and not self._crashes(f"before {name}"):
            self._at(self._arrives(), self._arrive_at, name, operation, answer)
        return answer

    def lag(self) -> float:
        weather = self.weather
        return weather.chance.random() * LONGEST_LAG if weather.stale and weather.happens(weather.stale) else 0.0

    def _arrives(self) -> float:
        """In order, as on one connection."""
        stalled = self.weather.chance.random() * LONGEST_STALL if self.weather.happens(self.weather.stall) else 0.0
        self._arrival = max(self._arrival + 1e-9, self.loop.time() + self.weather.delay() + stalled)
        return self._arrival

    def _at(self, when: float, callback: Callable[..., None], *args: Any) -> None:
        self.loop.call_at(when, callback, *args, context=NOWHERE)

    def _arrive_at(self, name: str, operation: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        weather = self.weather
        if weather.happens(weather.lost_request):
            weather.trace(f"{self.process} {name}: request lost")
            self._at(self.loop.time() + ANSWER_SECONDS, settle, answer, BrokerUnavailable("no answer"))
            return
        done: asyncio.Future[Any] = self.loop.create_future()
        perform(operation, done)
        error = done.exception()
        weather.trace(f"{self.process} {name}: {error!r}" if error is not None else f"{self.process} {name}: {_short(done.result())}")
        if self._crashes(f"after {name}") or self.is_cut:
            return
        if weather.happens(weather.lost_answer):
            weather.trace(f"{self.process} {name}: answer lost")
            self._at(self.loop.time() + ANSWER_SECONDS, settle, answer, BrokerUnavailable("no answer"))
        else:
            self._at(self.loop.time() + weather.delay(), _hand_over, done, answer)

    def send(self, name: str, operation: Callable[[], object]) -> None:
        if self.is_cut or self.is_closed or self._crashes(f"before {name}"):
            return
        if self.weather.happens(self.weather.lost_word) and name not in ("wish", "live", "unfollow"):
            self.weather.trace(f"{self.process} {name}: lost")
            return
        self._at(self._arrives(), self._sent, name, operation)

    def _sent(self, name: str, operation: Callable[[], object]) -> None:
        self.weather.trace(f"{self.process} {name}")
        operation()
        self._crashes(f"after {name}")

    def receive(self, name: str, callback: Callable[..., object], *args: Any) -> None:
        if name in ("rest", "nudge") and self.weather.happens(self.weather.lost_word):
            return
        late = self.weather.chance.random() * 3 if self.weather.happens(self.weather.late) else 0.0
        self.loop.call_later(self.weather.delay() + late, self._come, callback, args, context=self.context)

    def _crashes(self, when: str) -> bool:
        if self.is_cut or not self.mortal or not self.weather.happens(self.weather.crash):
            return False
        self.weather.trace(f"{self.process} crashes {when}")
        self.kill()
        return True

    def kill(self) -> None:
        """kill -9: nothing of the process runs any more, and the server sees its connection end."""
        loop = self.loop
        assert isinstance(loop, VirtualLoop)
        loop.kill(self.process)
        self.cut()


def _hand_over(done: asyncio.Future[Any], answer: asyncio.Future[Any]) -> None:
    perform(done.result, answer)


def _short(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, (list, dict)) else str(value)[:60]
