// Messages of a step call that are larger than the server's max_payload: they lie in the blobs of the run, in chunks, with a
// slip in their place (schemas/calls/parcel.json).
import { randomBytes } from "node:crypto";

const CHUNK = 512 * 1024;

export const isSlip = (message) => "noria_blob" in message;

const place = (namespace, { root, run_id }, name) => `${namespace}.blob.${root}.${run_id}.${name}`;

/** The call that a slip stands for. */
export async function take(connection, namespace, slip) {
  const chunks = [];
  for (let n = 0; n < Number(slip.noria_blob.split("-").at(-1)); n++) {
    const subject = `${place(namespace, slip, slip.noria_blob)}.${n}`;
    const found = await connection.request(`$JS.API.DIRECT.GET.${namespace.toUpperCase()}_BLOBS.${subject}`);
    if (found.headers?.code) throw new Error(`the call ${slip.noria_blob} is gone: ${found.headers.description}`);
    chunks.push(found.data);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
}

/** Store a reply to a call (its `reply_as` is "parcel"); the slip to answer with. */
export async function leave(connection, namespace, call, body) {
  const size = Math.min(CHUNK, connection.info.max_payload - 8192);
  const count = Math.ceil(body.length / size);
  const name = `call-${randomBytes(16).toString("hex")}-${count}`;
  for (let n = count - 1; n >= 0; n--) { // the first one last: who finds it finds all
    const stored = await connection.request(`${place(namespace, call, name)}.${n}`, body.subarray(n * size, (n + 1) * size));
    if (stored.json().error) throw new Error(stored.json().error.description);
  }
  return { noria_blob: name, root: call.root, run_id: call.run_id };
}
