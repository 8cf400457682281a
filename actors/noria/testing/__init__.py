"""For tests of workflows: run them in this process, on a simulated broker, in virtual time.

    async def test_an_order_waits_an_hour() -> None:
        async with simulated() as noria, noria.worker(order):
            result = await noria.run(order, {"sku": "x"})  # its sleep(3600) takes no time
            assert result.status == "success"

    async def test_no_crash_charges_twice() -> None:
        report = await crash_everywhere(order, {"sku": "x"}, effects=lambda: list(charged), prepare=charged.clear)
        report.check()

The pytest plugin (`pytest_plugin.py`, loaded by itself where Noria is installed) has the first as the fixture `simulated_noria`.
"""

from noria.testing.crashes import Crash, CrashReport, crash_everywhere
from noria.testing.simulated import simulated

__all__ = ["Crash", "CrashReport", "crash_everywhere", "simulated"]
