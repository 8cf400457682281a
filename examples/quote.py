"""A workflow whose prices are made in another language: start `node examples/node/handler.mjs`, then

noria run examples/quote.py:quote --input '{"sku": "wheel", "quantity": 2}'
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from noria import Retry, Workflow, remote_step, step


class Request(BaseModel):
    sku: str
    quantity: int = 1
    seconds: float = 0


class Price(BaseModel):
    total: int
    key: str
    discount: int = 0


price = remote_step("price", input=Request, output=Price, retry=Retry(attempts=2, delay=0.05), timeout=60)


@step
async def offer(price: Price) -> dict[str, Any]:
    return {"to_pay": price.total - price.discount, "key": price.key}


quote = Workflow("quote", input=Request).then(price).then(offer).commit()
