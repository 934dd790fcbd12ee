// Run as: node verify.mjs SECRET SIGNATURE < body
// The function is the one that the API documentation shows to receivers.
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

function verifySignature(body, secret, signatureHeader) {
  const expected = "sha256=" + createHmac("sha256", secret)
    .update(body)
    .digest("hex");
  return expected === signatureHeader;
}

const [secret, signature] = process.argv.slice(2);
const raw = readFileSync(0, "utf8");
if (!verifySignature(raw, secret, signature)) {
  console.error("Invalid signature");
  process.exit(1);
}
console.log(JSON.parse(raw).task.title);
