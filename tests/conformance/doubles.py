"""Steps and checks that many rows share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from noria import Context, Noria, RunEvent, RunResult, RunStream, Step, step


def gives(id: str, output: Any, calls: Counter[str] | None = None, /, *, name: str | None = None, **options: Any) -> Step:
    """A step that gives `output`, or output(its input), and counts its calls under `name` (its id)."""

    async def work(data: Any) -> Any:
        if calls is not None:
            calls[name or id] += 1
        return output(data) if callable(output) else output

    return step(work, id=id, **options)


@asynccontextmanager
async def closed_store(noria: Noria) -> AsyncIterator[None]:
    """The server refuses to store anything of any run: everything is larger than the stream takes."""
    name, api = noria.broker.subjects.runs, noria.broker.connection.api
    config = (await api(f"STREAM.INFO.{name}"))["config"]
    for size in (1, config["max_msg_size"]):
        answer = await api(f"STREAM.UPDATE.{name}", {**config, "max_msg_size": size})
        assert "error" not in answer, answer
        if size == 1:
            yield


def fails(id: str, message: str, calls: Counter[str] | None = None, **options: Any) -> Step:
    def error(_: Any) -> Any:
        raise RuntimeError(message)

    return gives(id, error, calls, **options)


def adds(id: str, n: int, calls: Counter[str], *, key: str = "value") -> Step:
    return gives(id, lambda data: {key: data[key] + n}, calls)


def waits(
    id: str, then: Any, calls: Counter[str] | None = None, /, *, payload: Any = None, label: Any = None,
    when: Callable[[Any], bool] | None = None, **options: Any,
) -> Step:  # fmt: skip
    """A step that suspends until it is resumed and then gives `then`, or then(input, resume data).

    `payload` and `label` may be functions of the input; inputs of which `when` does not hold are not waited for.
    """

    async def work(data: Any, ctx: Context) -> Any:
        if calls is not None:
            calls[id] += 1
        if ctx.resume_data is None and (when is None or when(data)):
            ctx.suspend(payload(data) if callable(payload) else payload, label=label(data) if callable(label) else label)
        return then(data, ctx.resume_data) if callable(then) else then

    return step(work, id=id, **options)


def paths(result: RunResult) -> list[list[str]]:
    """The ids of what is suspended, each from the outermost workflow down."""
    return [list(s.path) for s in result.suspended]


def statuses(result: RunResult) -> dict[str, str]:
    return {id: record.status for id, record in result.steps.items()}


def spy(seen: dict[str, Any], name: str, read: Callable[[Any, Any], Any]) -> Callable[..., None]:
    """A callback of (result, ctx) that counts its calls and keeps what `read` finds."""

    def callback(result: Any, ctx: Any) -> None:
        seen[f"{name} calls"] = seen.get(f"{name} calls", 0) + 1
        seen[name] = read(result, ctx)

    return callback


def outputs(result: RunResult) -> dict[str, Any]:
    """Every record's output; all of them must be successes."""
    assert {k: r.status for k, r in result.steps.items() if r.status != "success"} == {}, result.error
    return {k: r.output for k, r in result.steps.items()}


def timed(result: RunResult, *ids: str) -> None:
    """The named records began and ended, at aware times."""
    for id in ids:
        record = result.steps[id]
        assert record.started_at and record.ended_at and record.started_at.tzinfo and record.started_at <= record.ended_at, id


def failed(result: RunResult, id: str, text: str) -> None:
    """The step and the run failed with this text in their error."""
    error = result.steps[id].error
    assert result.status == result.steps[id].status == "failed"
    assert error is not None and text in error.message and result.error is not None and text in result.error.message


async def drained(stream: RunStream, seconds: float = 20) -> list[RunEvent]:
    """Every event until the stream ends by itself."""
    async with asyncio.timeout(seconds):
        return [event async for event in stream]


def types(events: list[RunEvent]) -> list[str]:
    """The types, without their common prefix."""
    return [event.type.removeprefix("workflow-") for event in events]


def told(events: list[RunEvent], type: str) -> list[Any]:
    """The data of the events of one type."""
    return [event.data for event in events if event.type == f"workflow-{type}" or event.type == type]
