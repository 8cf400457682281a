// Handlers of workflow steps in Node.js: `node handler.mjs [nats address] [namespace]`.
//
// A step of a workflow is called with one JSON request on <namespace>.step.<workflow>.<step> and answered with one JSON
// reply; both are described in schemas/calls. Here the step "price" of the workflow "quote" (see examples/quote.py).
import { connect } from "@nats-io/transport-node";

const [address = "nats://127.0.0.1:4222", namespace = "noria"] = process.argv.slice(2);
const connection = await connect({ servers: address });
const running = new Map(); // cancel subject -> AbortController

/** Serve a step: `handle(call, signal, tell)` gives its reply; `tell` shows something to those who watch the run. */
function serve(workflow, step, handle) {
  connection.subscribe(`${namespace}.step.${workflow}.${step}`, {
    queue: "q", // each call goes to one of all handlers
    callback: async (_, message) => {
      const call = message.json();
      const stop = new AbortController();
      const say = (progress) => call.progress && connection.publish(call.progress, JSON.stringify(progress));
      const beat = setInterval(() => say({ type: "heartbeat" }), (call.heartbeat ?? 2) * 1000);
      if (call.cancel) running.set(call.cancel, stop);
      let reply;
      try {
        reply = await handle(call, stop.signal, (data) => say({ type: "output", data }));
      } catch (error) {
        const told = { type: error.name, message: error.message, attributes: { ...error } };
        reply = { status: "failed", error: told, retryable: error.retryable ?? true };
      } finally {
        clearInterval(beat);
        running.delete(call.cancel);
      }
      message.respond(JSON.stringify(reply));
    },
  });
  connection.subscribe(`${namespace}.uncall.${workflow}.${step}.*`, {
    callback: (_, message) => running.get(message.subject)?.abort(),
  });
}

class UnknownSku extends Error {
  name = "UnknownSku";
  retryable = false; // another try would not help
  constructor(sku) {
    super(`nobody sells ${sku}`);
    this.sku = sku;
  }
}

const PRICES = { wheel: 120, bucket: 15 };

serve("quote", "price", async ({ input, attempt, resume_data, idempotency_key }, signal, tell) => {
  if (!(input.sku in PRICES)) throw new UnknownSku(input.sku);
  if (input.sku === "bucket" && attempt === 0) throw new Error("the price list is being rewritten");
  if (input.quantity > 100 && resume_data == null) {
    return { status: "suspended", payload: { reason: "a large order" }, labels: ["approve"] };
  }
  tell({ looked_up: input.sku });
  for (let waited = 0; waited < (input.seconds ?? 0) && !signal.aborted; waited += 0.05) {
    await new Promise((done) => setTimeout(done, 50));
  }
  if (signal.aborted) console.log("cancelled");
  const total = PRICES[input.sku] * input.quantity;
  return { status: "success", output: { total, key: idempotency_key, discount: resume_data?.discount ?? 0 }, state: { priced: true } };
});

await connection.flush();
console.log("serving quote.price");
process.on("SIGTERM", () => connection.drain());
await connection.closed();
