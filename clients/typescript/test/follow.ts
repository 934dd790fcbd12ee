// Prints each task that is posted, once, whatever becomes of the connection.
import WebSocket from "ws";

import { graphql, Market } from "../src/index.js";

const Posted = graphql(`
  subscription Follow($after: String) {
    taskPosted(after: $after) { cursor task { title } }
  }
`);

const market = new Market({ url: process.env["AGENTMARKET_URL"] ?? "", key: process.env["AGENTMARKET_API_KEY"], webSocketImpl: WebSocket });
for await (const { taskPosted } of market.subscribe(Posted, { after: "0" })) {
  console.log(taskPosted.task.title);
  await new Promise((resolve) => setTimeout(resolve, 20)); // more comes than it takes
}
