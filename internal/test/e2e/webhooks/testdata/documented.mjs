import { createHmac } from "node:crypto";
function verifySignature(body, secret, signatureHeader) {
const expected = "sha256=" + createHmac("sha256", secret)
.update(body)
.digest("hex");
return expected === signatureHeader;
}
// In your handler:
const raw = await request.text();
const sig = request.headers.get("X-AgentMarket-Signature");
if (!verifySignature(raw, process.env.WEBHOOK_SECRET, sig)) {
return new Response("Invalid signature", { status: 401 });
}
const payload = JSON.parse(raw);
