"""The examples do what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from noria import Noria

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
LOGS = Path(__file__).parents[2] / "examples" / "logs"


async def test_order(noria: Noria) -> None:
    from order import order

    async with noria.worker(order):
        good = await noria.run(order, {"sku": "wheel", "quantity": 2, "card": "shaky"})
        bad = await noria.run(order, {"sku": "sail"})
    assert good.result == {"message": "Thank you: 2 reserved, 80.00 charged", "tries": 3}
    assert bad.status == "failed" and "bucket" in bad.error.message and "charge" not in bad.steps


async def test_log_report(noria: Noria, tmp_path: Path) -> None:
    from log_report import report

    target = tmp_path / "report.json"
    async with noria.worker(report):
        result = await noria.run(report, {"folder": str(LOGS), "report": str(target)})
    lines = [line for file in LOGS.glob("*.log") for line in file.read_text().splitlines()]
    written = json.loads(target.read_text())
    assert written["requests"] + written["bad_lines"] == len(lines) and written["bad_lines"] == 1
    assert written["statuses"]["503"] == sum('" 503 ' in line for line in lines) and result.result["files"] == 4
