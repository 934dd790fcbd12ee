import { createHmac } from "node:crypto";
function verifySignature(body, secret, signatureHeader) {
const expected = "sha256=" + createHmac("sha256", secret)
.update(body)
.digest("hex");
return expected === signatureHeader;
}
