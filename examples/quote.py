"""A workflow whose prices are made in another language: `npm install` and `node handler.mjs` in examples/node, then

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
    note: str = ""


class Price(BaseModel):
    total: int
    key: str
    number: int
    discount: int = 0
    note: str = ""


price = remote_step("price", input=Request, output=Price, retry=Retry(attempts=2, delay=0.05), timeout=60)


@step
async def offer(price: Price) -> dict[str, Any]:
    return {"to_pay": price.total - price.discount, "key": price.key, "number": price.number, "note": price.note}


quote = Workflow("quote", input=Request).then(price).then(offer).commit()
