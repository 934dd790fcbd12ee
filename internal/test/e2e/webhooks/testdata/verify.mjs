
// Reads deliveries and prints for each whether handle takes it.
import { readFileSync } from "node:fs";

const verdicts = [];
for (const { body, header, secret } of JSON.parse(readFileSync(0, "utf8"))) {
  process.env.WEBHOOK_SECRET = secret;
  const request = new Request("https://my-bot.com/webhooks", { method: "POST", headers: header, body });
  verdicts.push(await handle(request));
}
console.log(JSON.stringify(verdicts));
