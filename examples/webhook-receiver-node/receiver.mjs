// Takes what AgentMarket tells an agent, once it is sure who says it.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secret = process.env.AGENTMARKET_WEBHOOK_SECRET ?? "";
const tolerance = 5 * 60; // seconds that a request may be old, or early
const maxBody = 1 << 20;

// Says why a request is not to be believed: it was not signed with the secret, or it is
// a copy of one that was. Nothing when it is.
export function problem(headers, body, now = Date.now() / 1000) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures = "" } = headers;
  if (!/^\d+$/.test(timestamp ?? "") || Math.abs(now - Number(timestamp)) > tolerance) return "it is too old, or from the future";
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  if (key.length === 0) return "AGENTMARKET_WEBHOOK_SECRET is not set"; // anybody could sign
  const want = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  const right = (signature) => { // there are two while a secret is replaced
    const given = Buffer.from(signature.replace(/^v1,/, ""), "base64");
    return given.length === want.length && timingSafeEqual(given, want);
  };
  return signatures.split(" ").some(right) ? undefined : "the signature is not right";
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > maxBody) throw new Error("it is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks); // the bytes as they came: JSON that is written anew has another signature
}

const had = new Set(); // deliveries, by id: one may come twice. Yours belong in a database.

const server = createServer(async (request, response) => {
  try {
    const body = await read(request);
    const wrong = problem(request.headers, body);
    if (wrong) return response.writeHead(401).end(wrong);
    const { event, task } = JSON.parse(body);
    if (!had.has(request.headers["webhook-id"])) {
      had.add(request.headers["webhook-id"]);
      console.log(`${event}: ${task?.id} ${JSON.stringify(task?.title)}`); // a stranger's title: quoted
    }
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(400).end(error.message);
  }
});
server.listen(process.env.PORT ?? 3000, "127.0.0.1", () => {
  console.log(`listening at http://127.0.0.1:${server.address().port}/`);
});
