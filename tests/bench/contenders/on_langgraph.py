"""LangGraph's StateGraph on AsyncSqliteSaver, its default durability (async). No server and no worker: the caller resumes."""

from __future__ import annotations

import asyncio
import itertools
import operator
import os
import sys
import time
from typing import Annotated, Any, TypedDict

import shared
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

STORE = shared.FOLDER / "langgraph.sqlite"
STAMPS: list[float] = []
names = itertools.count()


class State(TypedDict, total=False):
    last: dict[str, Any]
    n: int


class Items(TypedDict, total=False):
    items: Annotated[list[Any], operator.add]
    n: int


def noop(i: int) -> Any:
    async def work(state: State) -> dict[str, Any]:
        return {"last": shared.small(i)}

    return work


def slow(i: int) -> Any:
    async def work(state: State) -> dict[str, Any]:
        shared.mark(shared.STEPS_LOG, i)
        await asyncio.sleep(shared.PAUSE6)
        return {"last": shared.small(i)}

    return work


def chain(steps: int, make: Any) -> Any:
    graph, before = StateGraph(State), START
    for i in range(steps):
        graph.add_node(f"s{i}", make(i))
        graph.add_edge(before, f"s{i}")
        before = f"s{i}"
    graph.add_edge(before, END)
    return graph


def fan() -> Any:
    graph = StateGraph(Items)

    async def item(state: Any) -> dict[str, Any]:
        return {"items": [shared.small(state["i"])]}

    graph.add_node("item", item)
    graph.add_node("begin", lambda state: {})
    graph.add_node("join", lambda state: {"n": len(state["items"])})
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", lambda state: [Send("item", {"i": i}) for i in range(shared.ITEMS3)], ["item"])
    graph.add_edge("item", "join")
    graph.add_edge("join", END)
    return graph


def loop() -> Any:
    async def grow(state: State) -> dict[str, Any]:
        STAMPS.append(time.perf_counter())
        n = state.get("n", 0)
        return {"n": n + 1, "last": shared.large(n)}

    graph = StateGraph(State)
    graph.add_node("grow", grow)
    graph.add_edge(START, "grow")
    graph.add_conditional_edges("grow", lambda state: END if state["n"] >= shared.STEPS4 + 1 else "grow", [END, "grow"])
    return graph


def parking() -> Any:
    graph = StateGraph(State)
    graph.add_node("a", noop(0))
    graph.add_node("wait", lambda state: {"last": {"v": interrupt("go")}})
    graph.add_node("b", noop(1))
    for before, after in ((START, "a"), ("a", "wait"), ("wait", "b"), ("b", END)):
        graph.add_edge(before, after)
    return graph


def named(name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": name or f"t{next(names)}"}, **more}


async def main(workload: str) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(STORE)) as saver:
        await saver.setup()
        if workload == "crash-worker":
            graph = chain(shared.STEPS6, slow).compile(checkpointer=saver)
            await graph.ainvoke(None if shared.marks(shared.STEPS_LOG) else {"last": {}}, named("crash"))
            shared.mark(shared.DONE_LOG, 0)
            await asyncio.sleep(300)
        five, ten = chain(shared.STEPS2, noop).compile(checkpointer=saver), chain(shared.STEPS1, noop).compile(checkpointer=saver)
        for _ in range(shared.WARM1):
            await ten.ainvoke({"last": {}}, named())
        match workload:
            case "W1":
                spent = []
                for _ in range(shared.RUNS1):
                    began = time.perf_counter()
                    await ten.ainvoke({"last": {}}, named())
                    spent.append(time.perf_counter() - began)
                shared.emit("W1", **shared.latency(spent))
            case "W2":
                spent_s = await shared.all_of(shared.RUNS2, shared.FLIGHT2, lambda n: five.ainvoke({"last": {}}, named()))
                shared.emit("W2", steps_per_s=shared.RUNS2 * shared.STEPS2 / spent_s)
            case "W3":
                graph = fan().compile(checkpointer=saver)
                began = time.perf_counter()
                assert (await graph.ainvoke({"items": []}, named()))["n"] == shared.ITEMS3
                shared.emit("W3", seconds=time.perf_counter() - began)
            case "W4":
                before, graph = shared.stored_bytes(STORE), loop().compile(checkpointer=saver)
                await graph.ainvoke({"n": 0}, named(recursion_limit=shared.STEPS4 + 10))
                shared.emit("W4", last_to_first=shared.growth(STAMPS), bytes_per_step=(shared.stored_bytes(STORE) - before) / shared.STEPS4)
            case "W5":
                graph, idle = parking().compile(checkpointer=saver), shared.memory_mb(os.getpid())
                park_s = await shared.all_of(shared.RUNS5, shared.FLIGHT5, lambda n: graph.ainvoke({"last": {}}, named(f"p{n}")))
                memory = shared.memory_mb(os.getpid()) - idle
                resume_s = await shared.all_of(shared.RUNS5, shared.FLIGHT5, lambda n: graph.ainvoke(Command(resume="x"), named(f"p{n}")))
                shared.emit("W5", park_s=park_s, memory_mb=memory, resume_s=resume_s)


if __name__ == "__main__":
    if sys.argv[1] == "W6":
        shared.emit("W6", **shared.crash(lambda: shared.again("crash-worker")))
    else:
        asyncio.run(main(sys.argv[1]))
