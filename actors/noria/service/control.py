"""The control API: every verb of the client as an endpoint of the micro service `noria`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from noria.contract import control
from noria.contract.control import Begun, Control, EventPage, Settled, to_json
from noria.contract.subjects import Subjects
from noria.contract.values import dumps
from noria.errors import InvalidInput, NoriaError, NoWorker, RunNotFound
from noria.limits import API_PAGE_BYTES, API_PAGE_EVENTS, API_QUIET_SECONDS
from noria.ports import Answer, Endpoint

if TYPE_CHECKING:
    from noria.client.noria import Noria
    from noria.client.run import Run
    from noria.client.streams import RunStream

log = logging.getLogger("noria.service")
NAME = "noria"


async def serve_control(noria: Noria) -> Callable[[float], Awaitable[None]]:
    """Answer on `<ns>.api.<verb>`, sharing the load with all workers; how to stop."""
    subjects = Subjects(noria.namespace)
    endpoints = [_endpoint(noria, subjects, verb, kind) for verb, kind in control.VERBS.items()]
    return await noria.broker.services.serve(NAME, "Noria's control API", {"namespace": noria.namespace}, endpoints)


def _endpoint(noria: Noria, subjects: Subjects, verb: str, kind: type[Control]) -> Endpoint:
    async def handler(body: bytes) -> Answer:
        try:
            return Answer(dumps(to_json(await _answer(noria, control.request(kind, body)))))
        except (NoriaError, TimeoutError) as error:
            return Answer(control.error_body(error), str(error) or type(error).__name__, control.code_of(error))
        except Exception as error:
            log.exception("the control API failed at %r", verb)
            return Answer(control.error_body(error), repr(error), "500")

    return Endpoint(verb, subjects.api(verb), handler, _about(kind))


@cache  # making a schema costs milliseconds, and a worker starts with all of them
def _about(kind: type[Control]) -> Mapping[str, str]:
    return {"description": " ".join((kind.__doc__ or "").split()), "request": json.dumps(kind.model_json_schema())}


async def _answer(noria: Noria, request: Control) -> Any:
    """What a request comes to. Raises what the client's own verbs raise."""
    match request:
        case control.Start() as r:
            run = noria.create_run(noria.registry.get(r.workflow, r.workflow), r.run_id or r.request_id, r.resource_id)
            run.request_id = r.request_id
            stream = run.stream(r.input, state=r.state, request_context=r.request_context, per_step=r.per_step)
            return await _begun(run, stream, r.wait)
        case control.Get() as r:
            record = await noria.runs.get(r.run_id, r.workflow, nested=r.nested)
            if record is None:
                raise RunNotFound(f"there is no run {r.run_id!r}")
            return record
        case control.List() as r:
            return await noria.runs.list(
                r.workflow, status=r.status, resource_id=r.resource_id, since=r.since, until=r.until, limit=r.limit, offset=r.offset
            )
        case control.Resume() as r:
            run = await _find(noria, r.run_id, r.workflow, r.request_id)
            stream = run.resume_stream(
                r.data, step=r.step, label=r.label, index=r.index, request_context=r.request_context, per_step=r.per_step
            )
            return await _begun(run, stream, r.wait)
        case control.Cancel() as r:
            run = await _find(noria, r.run_id, r.workflow)
            await run.cancel(timeout=r.timeout)
            record = await run.get()
            return {"run_id": run.id, "workflow_id": run.workflow_id, "status": record.status if record is not None else "canceled"}
        case control.Restart() as r:
            return await (await _find(noria, r.run_id, r.workflow, r.request_id)).restart(timeout=r.timeout)
        case control.TimeTravel() as r:
            run = await _find(noria, r.run_id, r.workflow, r.request_id)
            return await _begun(run, run.time_travel_stream(r.step, **_travel(r)), r.wait)
        case control.Fork() as r:
            origin = await _find(noria, r.run_id, r.workflow, r.request_id)
            fork = origin.fork(r.step, run_id=r.fork_id or r.request_id, **_travel(r))
            return await _begun(fork, fork.stream(), r.wait)
        case control.Delete() as r:
            await noria.runs.delete(r.run_id, r.workflow, force=r.force)
            return {"run_id": r.run_id}
        case control.Workflows() as r:
            return await noria.workflows.list() if r.id is None else await noria.workflows.get(r.id)
        case control.Dead() as r:
            if r.replay is not None:
                return {"run_id": await noria.dead.replay(r.replay, request_id=r.request_id)}
            letters = await noria.dead.list(kind=r.kind, workflow=r.workflow, after=r.after, limit=r.limit)
            return [{**letter._asdict(), "body": letter.body.decode(errors="replace")} for letter in letters]
        case control.Schedules() as r:
            return await _schedules(noria, r)
        case control.Outcome() as r:
            return await _outcome(noria, r)
        case control.Events() as r:
            return await _events(noria, r)
        case _:
            raise InvalidInput(f"no verb takes a {type(request).__name__}")


async def _find(noria: Noria, run_id: str, workflow: str | None, request_id: str | None = None) -> Run:
    if workflow is None:
        record = await noria.runs.get(run_id, nested=False)
        if record is None:
            raise RunNotFound(f"there is no run {run_id!r}")
        workflow = record.workflow_id
    run = noria.create_run(noria.registry.get(workflow, workflow), run_id)
    run.request_id = request_id
    return run


async def _begun(run: Run, stream: RunStream, wait: float | None) -> Any:
    sequence = await stream.begin()
    if wait is None:
        return Begun(run_id=run.id, workflow_id=run.workflow_id, sequence=sequence)
    async with asyncio.timeout(wait):
        return await stream.result()


def _travel(r: control.Travel) -> dict[str, Any]:
    given = {"input": r.input, "state": r.state, "context": r.context, "request_context": r.request_context, "per_step": r.per_step}
    return {**given, "resume": r.resume}


async def _schedules(noria: Noria, r: control.Schedules) -> Any:
    if r.action == "list":
        return await noria.schedules.list(r.workflow)
    if r.id is None:
        raise InvalidInput(f"Schedules: id: which schedule is to {r.action}?")
    if r.action == "run":
        return {"run_id": await noria.schedules.run(r.id, r.workflow, request_id=r.request_id)}
    act = noria.schedules.pause if r.action == "pause" else noria.schedules.resume
    await act(r.id, r.workflow)
    return {"run_id": None}


async def _outcome(noria: Noria, r: control.Outcome) -> Any:
    try:
        result = await noria.create_run(r.workflow, r.run_id).outcome(r.after, r.seconds, ended=r.ended)
    except (TimeoutError, NoWorker) as error:
        return Settled(settled=False, hosted=isinstance(error, TimeoutError))
    return Settled(settled=True, result=to_json(result))


async def _events(noria: Noria, r: control.Events) -> Any:
    """What there is after a sequence, waiting for the first one; the caller asks again for more."""
    run = noria.create_run(noria.registry.get(r.workflow, r.workflow), r.run_id)
    if r.command:
        stream = run.attend(r.command, close_on_suspend=r.close_on_suspend, resumes=r.after >= r.command)
    else:
        stream = run.observe(close_on_suspend=r.close_on_suspend)
    source, found, result = aiter(stream), list[Any](), None
    size, over = 0, False
    try:
        async with asyncio.timeout(r.seconds) as limit:
            while len(found) < API_PAGE_EVENTS and size < API_PAGE_BYTES and not over:
                event = await anext(source, None)
                over = event is None
                if event is not None and event.sequence > r.after:
                    found.append(to_json(event))
                    size += len(dumps(found[-1]))
                    limit.reschedule(min(limit.when() or 0.0, asyncio.get_running_loop().time() + API_QUIET_SECONDS))
    except TimeoutError:
        pass
    finally:
        await source.aclose()
    if over and stream.was_read:
        result = to_json(await stream.result())
        result = result if size + len(dumps(result)) < API_PAGE_BYTES else None
    return EventPage(events=found, over=over, result=result)
