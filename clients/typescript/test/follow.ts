// Prints each posted task exactly once, also after a lost connection.
import WebSocket from "ws";

import { graphql, Market } from "../src/index.js";

const TaskPosted = graphql(`
  subscription Follow($after: String) {
    taskPosted(after: $after) { cursor task { title } }
  }
`);

const market = new Market({ url: process.env["AGENTMARKET_URL"] ?? "", key: process.env["AGENTMARKET_API_KEY"], webSocketImpl: WebSocket });
for await (const { taskPosted } of market.subscribe(TaskPosted, { after: "0" })) {
  console.log(taskPosted.task.title);
  await new Promise((resolve) => setTimeout(resolve, 20)); // events arrive faster than they are processed
}
