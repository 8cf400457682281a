"""An order: reserve, charge (the card terminal fails now and then), notify."""

from pydantic import BaseModel

from noria import Context, NonRetryable, Retry, Workflow, step


class Order(BaseModel):
    sku: str
    quantity: int = 1
    card: str = "visa"


class Reservation(BaseModel):
    sku: str
    quantity: int
    total: float


class Receipt(BaseModel):
    total: float
    charged_on_try: int


class OrderState(BaseModel):
    reserved: int = 0


PRICES = {"wheel": 40.0, "bucket": 12.5}


@step
async def reserve(order: Order, ctx: Context) -> Reservation:
    if order.sku not in PRICES:
        raise NonRetryable(f"there is no {order.sku!r}; there are {', '.join(sorted(PRICES))}")
    ctx.set_state(reserved=order.quantity)
    return Reservation(sku=order.sku, quantity=order.quantity, total=PRICES[order.sku] * order.quantity)


@step(retry=Retry(attempts=3, delay=0.05, backoff=2))
async def charge(reservation: Reservation, ctx: Context) -> Receipt:
    if ctx.attempt < 2 and ctx.init_data["card"] == "shaky":
        raise ConnectionError("the card terminal does not answer")
    return Receipt(total=reservation.total, charged_on_try=ctx.attempt + 1)


@step
def notify(receipt: Receipt, ctx: Context) -> dict[str, object]:
    return {"message": f"Thank you: {ctx.state.reserved} reserved, {receipt.total:.2f} charged", "tries": receipt.charged_on_try}


order = Workflow("order", input=Order, state=OrderState).then(reserve).then(charge).then(notify).commit()
