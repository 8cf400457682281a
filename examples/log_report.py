"""Reads a folder of web server logs, parses each file as an item of a foreach, and writes a report.

noria run examples/log_report.py:report --input '{"folder": "examples/logs"}'
"""

import json
import re
from collections import Counter
from pathlib import Path

from pydantic import BaseModel

from noria import NonRetryable, Workflow, step

LINE = re.compile(r'^(?P<host>\S+) \S+ \S+ \[[^\]]+\] "(?P<method>[A-Z]+) (?P<path>\S+) [^"]*" (?P<status>\d{3}) (?P<size>\d+|-)')


class Job(BaseModel):
    folder: str
    report: str | None = None


class Parsed(BaseModel):
    file: str
    lines: int
    bad_lines: int
    bytes: int
    statuses: dict[str, int]
    paths: dict[str, int]


@step
def find_files(job: Job) -> list[str]:
    files = sorted(str(p) for p in Path(job.folder).glob("*.log"))
    if not files:
        raise NonRetryable(f"no *.log files in {job.folder!r}")
    return files


@step
def parse(file: str) -> Parsed:
    statuses, paths, size, lines, bad = Counter[str](), Counter[str](), 0, 0, 0
    with open(file, encoding="utf-8", errors="replace") as text:
        for line in text:
            lines += 1
            found = LINE.match(line)
            if found is None:
                bad += 1
                continue
            statuses[found["status"]] += 1
            paths[found["path"].partition("?")[0]] += 1
            size += int(found["size"]) if found["size"] != "-" else 0
    return Parsed(file=Path(file).name, lines=lines, bad_lines=bad, bytes=size, statuses=statuses, paths=paths)


@step
def aggregate(files: list[Parsed]) -> dict[str, object]:
    statuses, paths = Counter[str](), Counter[str]()
    for file in files:
        statuses.update(file.statuses)
        paths.update(file.paths)
    good = sum(statuses.values())
    errors = sum(n for status, n in statuses.items() if status >= "500")
    return {
        "files": len(files), "requests": good, "bad_lines": sum(f.bad_lines for f in files), "bytes": sum(f.bytes for f in files),
        "statuses": dict(sorted(statuses.items())), "server_error_rate": round(errors / good, 4) if good else 0.0,
        "top_paths": [{"path": path, "requests": n} for path, n in sorted(paths.items(), key=lambda p: (-p[1], p[0]))[:5]],
    }  # fmt: skip


@step
def write_report(summary: dict[str, object], ctx) -> dict[str, object]:
    target = ctx.init_data.get("report")
    if target:
        Path(target).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return {**summary, "report": target}


report = Workflow("log-report", input=Job).then(find_files).foreach(parse, concurrency=4).then(aggregate).then(write_report).commit()
