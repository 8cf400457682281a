"""Rows of the catalogue per area: how many, covered, passing. `python tests/conformance/report.py [--refresh] [pytest args]`.

The rows are in rows.json; `--refresh` makes it anew from ../shared/conformance. Fails when a covered row fails, when a
mark names no row, or when pytest could not run.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ROWS = HERE / "rows.json"
CATALOGUES = ("control-flow", "suspend-stream", "reliability")


def refresh() -> None:
    rows = []
    for name in CATALOGUES:
        text = (ROOT.parent / "shared" / "conformance" / f"{name}.yaml").read_text(encoding="utf-8")
        rows += [{"id": i, "area": a, "catalogue": name} for i, a in re.findall(r"^- id: (\S+)\n  area: (\S+)$", text, re.M)]
        assert len(re.findall(r"^- id:", text, re.M)) == sum(row["catalogue"] == name for row in rows), name
    ROWS.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


class Marks:
    """A pytest plugin: the rows that tests cover, and what came of each."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}  # test -> rows
        self.outcomes: dict[str, set[str]] = defaultdict(set)  # row -> outcomes of its tests
        self.excluded: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.get_closest_marker("row")]
        for item in items:
            self.rows[item.nodeid] = [id for mark in item.iter_markers("row") for id in mark.args]
            if item.get_closest_marker("not_applicable"):
                self.excluded.update(self.rows[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            for id in self.rows.get(report.nodeid, []):
                self.outcomes[id].add(report.outcome)


def main(arguments: list[str]) -> int:
    if "--refresh" in arguments or not ROWS.exists():
        refresh()
    rows: list[dict[str, str]] = json.loads(ROWS.read_text(encoding="utf-8"))
    marks = Marks()
    options = ["-q", "--tb=short", "--rootdir", str(ROOT), *(a for a in arguments if a != "--refresh")]
    code = pytest.main([*options, str(ROOT / "tests")], plugins=[marks])
    covered = set(marks.outcomes) | marks.excluded
    passing = {id for id, seen in marks.outcomes.items() if seen == {"passed"}}
    failing = sorted(id for id, seen in marks.outcomes.items() if "failed" in seen)
    unknown = sorted({id for ids in marks.rows.values() for id in ids} - {row["id"] for row in rows})

    print(f"\n{'catalogue':<16}{'area':<14}{'rows':>6}{'covered':>9}{'passing':>9}{'n/a':>6}")
    for name in CATALOGUES:
        own = [row for row in rows if row["catalogue"] == name]
        areas = Counter(row["area"] for row in own)
        for area in [*areas, "total"]:
            ids = {row["id"] for row in own if area in (row["area"], "total")}
            counts = (len(ids), len(ids & covered), len(ids & passing), len(ids & marks.excluded))
            print(f"{name:<16}{area:<14}{counts[0]:>6}{counts[1]:>9}{counts[2]:>9}{counts[3]:>6}")
    for title, ids in (("failing", failing), ("marks that name no row", unknown)):
        if ids:
            print(f"{title}: {', '.join(ids)}")
    return 1 if failing or unknown or code not in (0, 1, 5) else int(code == 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
