"""Speed of Noria against the raw JetStream append and against its peers, interleaved in the same run.

python tests/bench/bench.py [W1 …] [--vs dbos,langgraph,restate] [--reps 3] [--json] [--smoke]

W1 a 10-step run, one at a time · W2 1,000 runs x 5 steps, 100 in flight · W3 fan-out of 1,000 items and join ·
W4 1,000 steps of 1 KB in one run · W5 2,000 parked runs, then resumed · W6 a worker killed in a 20-step run.
Each measurement is a fresh process with a fresh store. On a shared machine only ratios mean something: W1, W2 and W3
of Noria take turns with the raw append in the same process and give theirs as `ratio`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import BUILD, HERE, PEERS, Absent, prepare
from report import FLOOR, Figures, draw, print_tables

WORKLOADS = ("W1", "W2", "W3", "W4", "W5", "W6")
LIMIT_SECONDS = 280
# Gross regressions only: double of what the issue asks for. (workload, figure, bound, whether more is better)
SMOKE = (("W1", "ratio", 4.0, False), ("W2", "ratio", 1 / 6, True), ("W3", "ratio", 6.5, False), ("W4", "last_to_first", 2.2, False))


def measure(command: list[str], environment: dict[str, str], workload: str) -> dict[str, float]:
    """The figures of one fresh process; {} when it gave none."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        environment = {**os.environ, **environment, "BENCH_FOLDER": folder}
        process = subprocess.Popen(
            [*command, workload], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            out, err = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # the servers that it started, too
            out, err = process.communicate()
            err += f"\nstopped after {LIMIT_SECONDS} s"
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    figures: dict[str, float] = {}
    for line in out.splitlines():
        if line.startswith("{"):
            figures.update({k: v for k, v in json.loads(line).items() if k != "workload"})
    if not figures:
        print(f"{Path(command[-1]).stem} {workload} failed: {err.strip()[-400:]}", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="W1 …", help="all without")
    parser.add_argument("--vs", default="", help=f"peers, with commas: {', '.join(PEERS)}; installed on demand")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="W1 to W4 once; fails on gross regressions of the ratio to the floor")
    options = parser.parse_args()
    workloads = options.workloads or (WORKLOADS[:4] if options.smoke else WORKLOADS)
    if unknown := [w for w in workloads if w not in WORKLOADS]:
        parser.error(f"unknown workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    own = {"noria": "on_noria.py"} if options.smoke else {FLOOR: "on_jetstream.py", "noria": "on_noria.py"}
    contenders = {name: ([sys.executable, str(HERE / "contenders" / script)], dict[str, str]()) for name, script in own.items()}
    absent: dict[str, str] = {}
    for peer in filter(None, options.vs.split(",")):
        try:
            if peer not in PEERS:
                raise Absent(f"unknown; there are {', '.join(PEERS)}")
            contenders[peer] = prepare(peer)
        except Absent as why:
            absent[peer] = str(why)

    figures: Figures = {}
    for _ in range(1 if options.smoke else options.reps):
        for workload in workloads:
            for name, (command, environment) in contenders.items():
                if name == FLOOR and workload in ("W5", "W6"):
                    continue  # an append knows neither rest nor hosts
                print(f"{workload} {name} …", end=" ", file=sys.stderr, flush=True)
                measured = measure(command, environment, workload)
                print(", ".join(f"{figure} {value:.4g}" for figure, value in measured.items()), file=sys.stderr, flush=True)
                for figure, value in measured.items():
                    figures.setdefault(workload, {}).setdefault(name, {}).setdefault(figure, []).append(value)
    if options.json:
        print(json.dumps({"figures": figures, "absent": absent}))
    else:
        print_tables(figures, absent)
    if options.smoke:
        sys.exit(_gross(figures, workloads))
    draw(figures, BUILD / "bench.svg")
    print(f"chart: {BUILD / 'bench.svg'}", file=sys.stderr)


def _gross(figures: Figures, workloads: list[str]) -> str | int:
    """What regressed grossly, in words; 0 when nothing did."""
    said = []
    for workload, figure, bound, more in SMOKE:
        if workload in workloads:
            value = figures.get(workload, {}).get("noria", {}).get(figure, [None])[0]
            if value is None or (value < bound if more else value > bound):
                said.append(f"{workload} {figure} is {value}, the bound {bound:.3g}")
    return f"gross regression: {'; '.join(said)}" if said else 0


if __name__ == "__main__":
    main()
