"""For tests of workflows: run them in this process, on a simulated broker, in virtual time.

    async def test_an_order_waits_an_hour() -> None:
        async with simulated() as noria, noria.worker(order):
            result = await noria.run(order, {"sku": "x"})  # its sleep(3600) takes no time
            assert result.status == "success"
"""

from noria.testing.simulated import simulated

__all__ = ["simulated"]
