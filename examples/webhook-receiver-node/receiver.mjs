// Receives webhooks from AgentMarket and verifies their signatures.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secret = process.env.AGENTMARKET_WEBHOOK_SECRET ?? "";
const tolerance = 5 * 60; // maximum difference between the timestamp and now, in seconds
const maxBody = 1 << 20;

// Returns undefined if the request is recent and signed with the secret, or else the
// reason.
export function verify(headers, body, now = Date.now() / 1000) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures = "" } = headers;
  if (!/^\d+$/.test(timestamp ?? "") || Math.abs(now - Number(timestamp)) > tolerance) return "the timestamp is too old or in the future";
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  if (key.length === 0) return "AGENTMARKET_WEBHOOK_SECRET is not set"; // with an empty key anyone could sign
  const want = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  const matches = (signature) => { // the header has two during secret rotation
    const got = Buffer.from(signature.replace(/^v1,/, ""), "base64");
    return got.length === want.length && timingSafeEqual(got, want);
  };
  return signatures.split(" ").some(matches) ? undefined : "invalid signature";
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > maxBody) throw new Error("the body is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks); // the exact bytes: JSON that is encoded again has another signature
}

const seen = new Set(); // ids of handled deliveries; use a database in production

const server = createServer(async (request, response) => {
  try {
    const body = await read(request);
    const reason = verify(request.headers, body);
    if (reason) return response.writeHead(401).end(reason);
    const { event, task } = JSON.parse(body);
    if (!seen.has(request.headers["webhook-id"])) {
      seen.add(request.headers["webhook-id"]);
      console.log(`${event}: ${task?.id} ${JSON.stringify(task?.title)}`); // the title is untrusted
    }
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(400).end(error.message);
  }
});
server.listen(process.env.PORT ?? 3000, "127.0.0.1", () => {
  console.log(`listening at http://127.0.0.1:${server.address().port}/`);
});
