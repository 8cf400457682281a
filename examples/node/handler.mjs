// Handlers of workflow steps in Node.js: `node handler.mjs [nats address] [namespace]`.
//
// A NATS micro service (`nats service ls|info|stats`) with an endpoint per step: one JSON request on
// <namespace>.step.<workflow>.<step>, one JSON reply; both are described in schemas/calls. Here the step "price" of the
// workflow "quote" (see examples/quote.py).
import { Svcm } from "@nats-io/services";
import { connect } from "@nats-io/transport-node";
import { isSlip, leave, take } from "./parcels.mjs";

const [address = "nats://127.0.0.1:4222", namespace = "noria"] = process.argv.slice(2);
const connection = await connect({ servers: address });
const service = await new Svcm(connection).add({ name: "quote-steps", version: "1.0.0", description: "steps of quote, in Node.js" });
const running = new Map(); // cancel subject -> AbortController

/** Serve a step: `handle(call, signal, tell)` gives its reply; `tell` shows something to those who watch the run. */
function serve(workflow, step, handle) {
  const subject = `${namespace}.step.${workflow}.${step}`;
  const handler = (error, message) => error || answer(message, handle).catch((error) => message.respondError(500, String(error)));
  const metadata = { workflow, step };
  service.addEndpoint(`${workflow}-${step}`, { subject, handler, metadata });
  // this second endpoint says that calls and replies which no message can hold may come and go by reference
  service.addEndpoint(`${workflow}-${step}-parcel`, { subject: `${subject}.parcel`, handler, metadata });
  connection.subscribe(`${namespace}.uncall.${workflow}.${step}.*`, {
    callback: (_, message) => running.get(message.subject)?.abort(),
  });
}

async function answer(message, handle) {
  let call = parsed(message);
  if (call === undefined) return message.respondError(400, "a step call is a JSON object");
  if (call.sealed) return message.respondError(503, "the call is sealed: declare remote_step(..., sealed=False)");
  if (isSlip(call)) call = await take(connection, namespace, call);
  const stop = new AbortController();
  const say = (progress) => call.progress && connection.publish(call.progress, JSON.stringify(progress));
  const beat = setInterval(() => say({ type: "heartbeat" }), (call.heartbeat ?? 2) * 1000); // else it counts as dead
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
  const body = Buffer.from(JSON.stringify(reply));
  if (body.length <= connection.info.max_payload) return message.respond(body);
  if (call.reply_as !== "parcel") return message.respondError(413, `the reply of ${body.length} bytes is too large`);
  return message.respond(JSON.stringify(await leave(connection, namespace, call, body)));
}

function parsed(message) {
  try {
    return Object(message.json());
  } catch {
    return undefined;
  }
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
const numbers = new Map(); // idempotency key -> number of the quote; a real one would be in a database

serve("quote", "price", async ({ input, attempt, resume_data, idempotency_key }, signal, tell) => {
  if (!(input.sku in PRICES)) throw new UnknownSku(input.sku);
  if (input.sku === "bucket" && attempt === 0) throw new Error("the price list is being rewritten");
  if (input.quantity > 100 && resume_data == null) {
    return { status: "suspended", payload: { reason: "a large order" }, labels: ["approve"] };
  }
  tell({ looked_up: input.sku });
  // the same call may come again, when a caller or a handler died: it gets the same number
  if (!numbers.has(idempotency_key)) numbers.set(idempotency_key, numbers.size + 1);
  for (let waited = 0; waited < (input.seconds ?? 0) && !signal.aborted; waited += 0.05) {
    await new Promise((done) => setTimeout(done, 50));
  }
  if (signal.aborted) {
    console.log("cancelled"); // nobody waits for the reply any more
    return { status: "aborted" };
  }
  const total = PRICES[input.sku] * (input.quantity ?? 1);
  const output = { total, key: idempotency_key, number: numbers.get(idempotency_key), discount: resume_data?.discount ?? 0, note: input.note ?? "" };
  return { status: "success", output, state: { priced: true } };
});

await connection.flush();
console.log("serving quote.price");
process.on("SIGTERM", async () => {
  await service.stop(); // takes no more calls; those under way are answered
  await connection.drain();
});
await connection.closed();
