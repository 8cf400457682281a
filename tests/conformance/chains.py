"""Workflows that the rows on time travel, restart and step-wise runs share."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel

from noria import Context, StepResult, Workflow, step
from tests.conformance.doubles import gives

TONE = {"toneScore": {"score": 0.8}, "completenessScore": {"score": 0.7}}
BETTER = {"toneScore": {"score": 0.9}, "completenessScore": {"score": 0.8}}


class First(BaseModel):
    step1Result: int


def counting(calls: Counter[str], *, fussy: bool = False) -> Workflow:
    """step1 gives 2, step2 and step3 add one each; a fussy step2 fails on less than 3."""

    @step(id="step2")
    async def second(data: First) -> dict[str, int]:
        calls["step2"] += 1
        if fussy and data.step1Result < 3:
            raise RuntimeError("Simulated error")
        return {"step2Result": data.step1Result + 1}

    flow = Workflow("counting").then(gives("step1", {"step1Result": 2}, calls)).then(second)
    return flow.then(gives("step3", lambda data: {"final": data["step2Result"] + 1}, calls)).commit()


def nesting(calls: Counter[str]) -> Workflow:
    """As `counting`, with step2 and step3 nested, and step4."""
    inner = Workflow("nested", validate=False).then(gives("step2", lambda _: {"step2Result": 3}, calls))
    inner = inner.then(gives("step3", lambda data: {"nestedFinal": data["step2Result"] + 1}, calls))
    flow = Workflow("nesting", validate=False).then(gives("step1", {"step1Result": 2}, calls)).then(inner)
    return flow.then(gives("step4", lambda data: {"final": data["nestedFinal"] + 1}, calls)).commit()


def looping(calls: Counter[str], rounds: list[int]) -> Workflow:
    """A nested {increment, next} until its value is 10; what the condition sees of its round is kept."""

    def enough(out: Any, ctx: Context) -> bool:
        rounds.append(ctx.iteration)
        return out["value"] >= 10

    inner = Workflow("body").then(gives("increment", lambda data: {"value": data["value"] + 1}, calls)).then(gives("next", lambda data: data, calls))
    flow = Workflow("looping").then(gives("first-step", {"value": 0}, calls)).do_until(inner, enough)
    return flow.then(gives("final", lambda data: data, calls)).commit()


def prompting(calls: Counter[str]) -> Workflow:
    """Five steps; the second and the fourth suspend until they are resumed."""

    @step(id="promptAgent")
    async def prompt(data: dict[str, str], ctx: Context) -> dict[str, str]:
        calls["promptAgent"] += 1
        return {"modelOutput": "test output"} if ctx.resume_data is not None else ctx.suspend({"testPayload": "hello"})

    @step(id="improveResponse")
    async def improve(data: Any, ctx: Context) -> dict[str, str]:
        calls["improveResponse"] += 1
        return {"improvedOutput": "improved output"} if ctx.resume_data is not None else ctx.suspend()

    flow = Workflow("prompting").then(gives("getUserInput", {"userInput": "test input"}, calls)).then(prompt)
    flow = flow.then(gives("evaluateTone", TONE, calls)).then(improve)
    return flow.then(gives("evaluateImproved", BETTER, calls)).commit()


def record(input: Any, output: Any) -> dict[str, Any]:
    """A record to assume."""
    return {"status": "success", "input": input, "output": output, "started_at": 1_700_000_000.0, "ended_at": 1_700_000_001.0}


def shown(steps: dict[str, StepResult]) -> dict[str, Any]:
    """(input, output) of each record; all of them must be successes."""
    assert all(r.status == "success" for r in steps.values()), {k: r.status for k, r in steps.items()}
    return {id: (r.input, r.output) for id, r in steps.items()}
