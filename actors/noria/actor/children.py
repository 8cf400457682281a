"""Children of one entry: in place as tasks up to a window, the rest spread over the cluster; how many at once, and which rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from noria.actor import owned
from noria.actor.activation import Activation
from noria.actor.spread import Spread
from noria.clock import now
from noria.contract.events import TOLD_BY_FACT
from noria.contract.rewinds import Retried
from noria.limits import CHILD_WINDOW
from noria.machine.decide import is_paused, retried
from noria.machine.state import ENDED, RESTING, Actor, join, place, segment, split
from noria.machine.tasks import RunChildren
from noria.machine.view import child_status
from noria.workflow.entries import ForeachEntry, ParallelEntry
from noria.workflow.steps import Step

T = TypeVar("T")
Drive = Callable[[Activation, Actor], Coroutine[Any, Any, str]]


async def run_children(activation: Activation, actor: Actor, task: RunChildren, drive: Drive) -> dict[str, str]:
    """Run the open children until each of them rests; status by segment. Those that were not begun are "paused"."""
    fanout = _Fanout(activation, actor, task, drive)
    activation.after_look[fanout.hear] = None
    try:
        return await fanout.run()
    except BaseException:
        await fanout.stop()
        raise
    finally:
        del activation.after_look[fanout.hear]


class _Fanout:
    def __init__(self, activation: Activation, actor: Actor, task: RunChildren, drive: Drive) -> None:
        self.activation, self.actor, self.task, self.drive = activation, actor, task, drive
        self.stepwise = bool(activation.tree.per_step)
        self.rested: dict[str, str] = {}
        self.local: dict[asyncio.Task[str], str] = {}
        self.remote: dict[str, None] = {}
        self.sending: set[asyncio.Task[None]] = set()  # starts on their way
        self.done: list[asyncio.Task[Any]] = []  # of both, not collected yet
        self.bell = asyncio.Event()  # something is done, or there is news
        self.stirred = False  # the activation read what came
        self.spread = Spread(activation, actor)
        self.closed = False  # an item failed or bailed: begin no more items; what began goes on to its end, further tries included
        self.ended = 0
        self.again: list[tuple[str, Retried]] = []
        self.workflow = activation.places.workflow_of(actor)
        self.untouched: set[str] = set()  # segments that rest since an earlier stretch
        self.begun: set[str] = set()
        self.todo = self._todo()

    def _todo(self) -> list[str]:
        """Segments to run, the next one last; those that began before come first, since they keep their slots."""
        begun, new = list[str](), list[str]()
        for n, seg in enumerate(self.task.segments):
            child = self.activation.tree.actor(join(self.actor.path, seg))
            child.member = n
            if child.status in ENDED:
                self._end(child)
            else:
                (begun if child.last or child.started or self._has_begun(child) else new).append(seg)
        self.begun.update(begun)
        stirred = self._with_news() if begun else set[str]()
        # step by step only the first one goes on, beside what does so elsewhere
        begun.sort(key=lambda seg: (not self._goes_on_elsewhere(seg), seg not in stirred, self._has_to_wait(seg)))
        self.untouched.update(seg for seg in begun if seg not in stirred and self.child(seg).status != "active")
        aim = self.actor.aims.get(self.task.entry.id, [])[:1]
        new.sort(key=lambda seg: split(seg)[0] not in aim)
        if self.ended + len(begun) == 0 and isinstance(self.task.entry, ForeachEntry):
            self._tell_beginning()
        self._tell_resumed(stirred)
        return [*reversed(new), *reversed(begun)]

    def _tell_beginning(self, **more: Any) -> None:
        data = {"input": self.actor.prev, "attempt": 0, "status": "running", **more}
        self.activation.journal.live("workflow-step-start", self.actor, self.task.entry.id, data)

    def _tell_resumed(self, segments: Iterable[str]) -> None:
        """A foreach of a step begins once for all its items, and once again for those that are resumed together."""
        entry = self.task.entry
        if isinstance(entry, ForeachEntry) and isinstance(entry.unit, Step):
            stirred = [child for child in map(self.child, segments) if entry.id in child.steps]
            resumes = [resume for child in stirred if (resume := self.spread.new_resume(child, entry.id)) is not None]
            if resumes:
                self._tell_beginning(resume_payload=max(resumes, key=lambda resume: resume[0])[1])

    def _has_to_wait(self, seg: str) -> bool:
        tree = self.activation.tree
        return bool(tree.per_step) and child_status(tree, self.child(seg)) in ("suspended", "waiting")

    def _goes_on_elsewhere(self, seg: str) -> bool:
        """Step by step: whether a child, or one below it, goes on with a host of its own, or is about to, by an earlier word to go on."""
        if not self.activation.tree.per_step:
            return False
        elsewhere = [m for m in self.spread.members(self.child(seg)) if m.started]
        return any(m.status not in RESTING or self.spread.has_command(m) for m in elsewhere)

    def _has_begun(self, child: Actor) -> bool:
        travelled = child.blocks or child.lives or child.aims or child.prev != child.input  # no start could say so
        return bool(child.children or child.order or travelled)

    def child(self, seg: str) -> Actor:
        return self.activation.tree.actor(join(self.actor.path, seg))

    async def run(self) -> dict[str, str]:
        activation = self.activation
        while True:
            await self._begin()
            if not self.local and not self.remote and not self.sending:
                if self._has_room():  # what was taken up rests already, or ended
                    continue
                break
            if not self.local:
                activation.host.free_slot(activation)  # one who only watches holds no slot
            await self.bell.wait()
            news = self._collect()
            await self._live_again()
            if news:
                await self._pass_on()
        await activation.host.take_slot(activation)
        return {seg: self.rested.get(seg, "paused") for seg in self.task.segments}

    def hear(self) -> None:
        """The activation read what came."""
        self.stirred = True
        self.bell.set()

    async def stop(self) -> None:
        self.activation.stopping = True
        await owned.stop(self.local)
        await owned.finish(self.sending)  # what is under way lands: whoever cancels has to know of it
        self.activation.watching -= len(self.remote)

    def _has_room(self) -> bool:
        if not self.todo:
            return False
        if self._goes_on_elsewhere(self.todo[-1]):
            return True  # whatever is asked for now: the run rests when it does
        if (self.closed and self.todo[-1] not in self.begun) or is_paused(self.activation.tree):
            return False
        busy = len(self.local) + len(self.remote)
        if not self.stepwise:
            return busy + len(self.rested) < self.task.limit
        # one at a time; where it came to rest and took no step another one that began may
        return not busy and (not self.rested or self.todo[-1] in self.begun)

    async def _begin(self) -> None:
        rested: list[Actor] = []
        while self._has_room():
            child = self.child(self.todo.pop())
            seg = segment(child.path)
            self.begun.add(seg)
            if self._is_remote(child):
                self.remote[seg] = None
                self.activation.watching += 1
                if child.started:
                    rested.append(child)
                else:
                    await self.spread.store_input()
                    self.sending.add(self._begun(self.spread.start(child)))
                if self.activation.watching == 1:
                    self.activation.wake()  # the first one: the supervisor must begin to re-read
            else:
                self.local[self._begun(self._watched(child, self.drive(self.activation, child)))] = seg
        for child in rested:
            await self._go_on(child)

    def _begun(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.done.append(task)
        self.bell.set()

    def _watched(self, child: Actor, work: Coroutine[Any, Any, str]) -> Coroutine[Any, Any, str]:
        """A nested workflow has a span of its own; a step alone has its step's."""
        stretch, unit = self.activation.stretch, self.activation.places.unit(child.path)
        return work if stretch is None or isinstance(unit, Step) else stretch.child(child.path, work)

    def _is_remote(self, child: Actor) -> bool:
        if child.started:
            return True
        entry = self.task.entry
        placement = entry.placement if isinstance(entry, (ForeachEntry, ParallelEntry)) else "auto"
        if child.last or child.until or self._has_begun(child) or placement == "local" or self.activation.tree.per_step:
            return False
        if any(step.startswith(place(child.path, "")) for step in self.activation.tree.held):
            return False  # only here it is known what a time travel has for it
        return placement == "spread" or (len(self.local) >= CHILD_WINDOW and self.activation.host.peers.have(self.activation.workflow.id))

    async def _go_on(self, child: Actor) -> None:
        """A child that lives elsewhere, as a former host or this one had it: one that rests goes on by what came for it."""
        if child.status in RESTING and not self.spread.has_command(child) and not await self.spread.pass_down(child):
            self._rest(segment(child.path), child.status)

    async def _pass_on(self) -> None:
        """What came for children that live elsewhere and are active: they need not rest before they get it."""
        for seg in sorted(self.remote):
            await self.spread.pass_down(self.child(seg))

    def _collect(self) -> bool:
        """Count who came to rest, and take up again who got what it waits for; whether anything came from outside."""
        self.bell.clear()
        done, self.done = self.done, []
        for task in done:
            status, seg = task.result(), self.local.pop(task, None)
            if seg is None:
                self.sending.discard(task)
            else:
                self._rest(seg, status)
        if not self.stirred:
            return False
        self.stirred = False
        resting = [child for child in map(self.child, self.remote) if child.status in RESTING]
        for child in resting:
            if not self.spread.has_command(child) and not self.spread.is_held(child):
                self._rest(segment(child.path), child.status)
        stirred = self._with_news() if self.rested else set[str]()
        again = [s for s in self.rested if s in stirred]
        for seg in again:
            del self.rested[seg]
            self.untouched.discard(seg)
            self.todo.append(seg)
        self._tell_resumed(again)
        return True

    async def _live_again(self) -> None:
        """Nested workflows that failed are tried again at once, whatever their siblings do."""
        if not self.again:
            return
        again, self.again = self.again, []
        await self.activation.record(self.actor, [retry for _, retry in again])
        for seg, retry in again:
            member, life = self.task.segments.index(seg), self.actor.seg(retry.stem)
            if life == seg:  # a former host recorded something else: it is decided on anew
                self._end(self.child(seg))
                continue
            self.task.segments[member] = life
            self.child(life).member = member
            self.begun.add(life)
            self.todo.append(life)

    def _with_news(self) -> set[str]:
        """Segments of the children that got, themselves or somewhere below, what they wait for."""
        above = self.actor.path
        start = len(above) + 1 if above else 0
        return {m.path[start:].partition(".")[0] for m in self.activation.tree.below(above) if self.spread.has_news(m)}

    def _rest(self, seg: str, status: str) -> None:
        if seg in self.remote:
            del self.remote[seg]
            self.activation.watching -= 1
        child = self.child(seg)
        if status == "waiting" and is_paused(self.activation.tree) and any(map(self.spread.has_news, self.spread.members(child))):
            status = "paused"  # its timer was not passed down yet
        retry = retried(self.actor, self.workflow, child, now()) if status == "failed" else None
        if retry is not None:
            return self.again.append((seg, retry))
        if status in ENDED:
            self._end(child)
        else:
            self.rested[seg] = status
        known = (child.leaf and status in TOLD_BY_FACT) or (seg in self.untouched and status not in ENDED)
        if isinstance(self.task.entry, ForeachEntry) and not known and (status in ENDED or status == "suspended"):
            self._progress(child, seg, status)
        return None

    def _end(self, child: Actor) -> None:
        self.ended += 1
        if isinstance(self.task.entry, ForeachEntry):
            self.closed = self.closed or child.status != "success" or (child.leaf and child.bailed)

    def _progress(self, child: Actor, seg: str, status: str) -> None:
        data = {"completed": self.ended, "total": len(self.task.segments), "index": split(seg)[1], "status": status}
        if status == "success":
            data["output"] = child.output
        self.activation.journal.live("workflow-step-progress", self.actor, self.task.entry.id, data)
