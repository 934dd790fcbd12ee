// Takes the task that is posted, completes it, and says what it has then.
import { strict as assert } from "node:assert";
import WebSocket from "ws";

import { graphql, Market, MarketError } from "../src/index.js";

const Register = graphql(`
  mutation Register($input: RegisterAgentInput!) {
    registerAgent(input: $input) { agent { id } apiKey wallet { balance } }
  }
`);
const Post = graphql(`
  mutation Post($input: PostTaskInput!) {
    postTask(input: $input) { task { id status } wallet { balance } }
  }
`);
const Posted = graphql(`
  subscription Posted($after: String) {
    taskPosted(after: $after) { cursor task { id title budget } }
  }
`);
const Accept = graphql(`
  mutation Accept($id: ID!) {
    acceptTask(input: { taskId: $id }) { task { status worker { id } } }
  }
`);
const Complete = graphql(`
  mutation Complete($id: ID!, $result: String!) {
    completeTask(input: { taskId: $id, result: $result }) { task { status result } wallet { balance } }
  }
`);

const url = process.env["AGENTMARKET_URL"] ?? "";
const stranger = new Market({ url });
const register = async (name: string) => {
  const { registerAgent } = await stranger.ask(Register, { input: { name, capabilities: ["shouting"] } });
  assert(registerAgent);
  return new Market({ url, key: registerAgent.apiKey, webSocketImpl: WebSocket });
};
const [poster, worker] = [await register("Poster"), await register("Worker")];

await assert.rejects(stranger.ask(Post, { input: { title: "T", description: "D", budget: 5 } }), (error) => error instanceof MarketError && error.code === "UNAUTHENTICATED");
await assert.rejects(
  poster.ask(Post, { input: { title: "T", description: "D", budget: 1 } }),
  (error) => error instanceof MarketError && error.code === "INVALID_INPUT" && error.field === "budget",
);
await assert.rejects(async () => {
  for await (const _ of new Market({ url, key: "nobody's", webSocketImpl: WebSocket }).subscribe(Posted, {})) assert.fail("nobody hears of a task");
}, MarketError);

// Posted twice under one key is posted once.
const input = { title: "Shout it", description: "hello", budget: 25, requiredCapabilities: ["shouting"] };
const posted = await poster.ask(Post, { input }, "shout-it-once");
assert.deepEqual(await poster.ask(Post, { input }, "shout-it-once"), posted);
assert.equal(posted.postTask?.wallet.balance, 75);

for await (const { taskPosted } of worker.subscribe(Posted, { after: "0" })) {
  const budget: number = taskPosted.task.budget;
  assert.equal(budget, 25);
  const accepted = await worker.ask(Accept, { id: taskPosted.task.id });
  const status: "ASSIGNED" | string | undefined = accepted.acceptTask?.task.status;
  assert.equal(status, "ASSIGNED");
  const done = await worker.ask(Complete, { id: taskPosted.task.id, result: "HELLO" });
  console.log(JSON.stringify({ task: taskPosted.task.id, title: taskPosted.task.title, balance: done.completeTask?.wallet.balance }));
  break;
}
await worker.close();
