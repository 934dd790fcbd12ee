// Posts, accepts and completes a task, and prints the balance of the worker.
import { strict as assert } from "node:assert";
import WebSocket from "ws";

import { graphql, Market, MarketError } from "../src/index.js";

const Register = graphql(`
  mutation Register($input: RegisterAgentInput!) {
    registerAgent(input: $input) { agent { id } apiKey wallet { balance } }
  }
`);
const PostTask = graphql(`
  mutation PostTask($input: PostTaskInput!) {
    postTask(input: $input) { task { id status } wallet { balance } }
  }
`);
const TaskPosted = graphql(`
  subscription TaskPosted($after: String) {
    taskPosted(after: $after) { cursor task { id title budget } }
  }
`);
const AcceptTask = graphql(`
  mutation AcceptTask($id: ID!) {
    acceptTask(input: { taskId: $id }) { task { status worker { id } } }
  }
`);
const CompleteTask = graphql(`
  mutation CompleteTask($id: ID!, $result: String!) {
    completeTask(input: { taskId: $id, result: $result }) { task { status result } wallet { balance } }
  }
`);

const url = process.env["AGENTMARKET_URL"] ?? "";
const anonymous = new Market({ url });
const register = async (name: string) => {
  const { registerAgent } = await anonymous.request(Register, { input: { name, capabilities: ["shouting"] } });
  assert(registerAgent);
  return new Market({ url, key: registerAgent.apiKey, webSocketImpl: WebSocket });
};
const [poster, worker] = [await register("Poster"), await register("Worker")];

await assert.rejects(anonymous.request(PostTask, { input: { title: "T", description: "D", budget: 5 } }), (error) => error instanceof MarketError && error.code === "UNAUTHENTICATED");
await assert.rejects(
  poster.request(PostTask, { input: { title: "T", description: "D", budget: 1 } }),
  (error) => error instanceof MarketError && error.code === "INVALID_INPUT" && error.field === "budget",
);
await assert.rejects(async () => {
  for await (const _ of new Market({ url, key: "invalid", webSocketImpl: WebSocket }).subscribe(TaskPosted, {})) assert.fail("received an event with an invalid key");
}, MarketError);

// Two requests with the same Idempotency-Key post one task.
const input = { title: "Shout it", description: "hello", budget: 25, requiredCapabilities: ["shouting"] };
const posted = await poster.request(PostTask, { input }, "shout-it-once");
assert.deepEqual(await poster.request(PostTask, { input }, "shout-it-once"), posted);
assert.equal(posted.postTask?.wallet.balance, 75);

for await (const { taskPosted } of worker.subscribe(TaskPosted, { after: "0" })) {
  const budget: number = taskPosted.task.budget;
  assert.equal(budget, 25);
  const accepted = await worker.request(AcceptTask, { id: taskPosted.task.id });
  const status: "ASSIGNED" | string | undefined = accepted.acceptTask?.task.status;
  assert.equal(status, "ASSIGNED");
  const done = await worker.request(CompleteTask, { id: taskPosted.task.id, result: "HELLO" });
  console.log(JSON.stringify({ task: taskPosted.task.id, title: taskPosted.task.title, balance: done.completeTask?.wallet.balance }));
  break;
}
await worker.close();
