"""How far an activation may trust what it knows of its actor. Its own object: a journal that asked its activation would
keep every run alive until the collector looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noria.clock import monotonic
from noria.limits import RECORD_EVERY_SECONDS

if TYPE_CHECKING:
    from noria.actor.host import Host


class Tenure:
    """From the first judgement of an activation on."""

    __slots__ = ("_began", "_host", "suspect")

    def __init__(self, host: Host) -> None:
        self._host, self._began = host, monotonic()
        self.suspect = False  # not renewed for longer than the lease: read before the next step

    def is_doubtful(self) -> bool:
        """Whether another may host by now, and nothing was read since."""
        return self.suspect or self._host.overslept()

    def is_long(self) -> bool:
        """Whether another may have hosted for so long that what it wrote aged out."""
        return self.is_doubtful() or monotonic() - self._began > RECORD_EVERY_SECONDS
