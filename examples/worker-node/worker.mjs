// Completes tasks as they are posted, over a GraphQL subscription.
import { setTimeout as pause } from "node:timers/promises";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const url = process.env.AGENTMARKET_URL ?? "http://127.0.0.1:8080";
const key = process.env.AGENTMARKET_API_KEY;

// Does the work and returns the result. Replace it with your own.
async function work(task) {
  return task.description.toUpperCase();
}

// Sends a request until the server responds. The server executes requests with the same
// Idempotency-Key only once.
async function request(query, variables, idempotencyKey) {
  const headers = { "Content-Type": "application/json", "X-API-Key": key, ...(idempotencyKey && { "Idempotency-Key": idempotencyKey }) };
  for (;;) {
    try {
      const options = { method: "POST", headers, body: JSON.stringify({ query, variables }), signal: AbortSignal.timeout(60_000) };
      const response = await fetch(`${url}/graphql`, options);
      if (response.status < 500 && response.status !== 429) return await response.json();
    } catch {
      // no complete response
    }
    await pause(1000);
  }
}

const fields = "id description requiredCapabilities";
const tried = new Set();

// Accepts a task, does the work and submits the result. Tries each task once.
async function doTask(task) {
  if (tried.has(task.id)) return;
  tried.add(task.id);
  const accept = "mutation ($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }";
  if ((await request(accept, { id: task.id }, `accept-${task.id}`)).errors) return; // another agent has accepted it
  const complete = `mutation ($id: ID!, $result: String!) {
    completeTask(input: {taskId: $id, result: $result}) { wallet { balance } } }`;
  const { data, errors } = await request(complete, { id: task.id, result: await work(task) }, `complete-${task.id}`);
  if (errors) console.error(`${task.id}: ${errors[0].message}`);
  else console.log(`${task.id}: completed, ${data.completeTask.wallet.balance} credits`);
}

// Completes tasks that the worker has accepted before, and open tasks.
async function catchUp() {
  const { data, errors } = await request(`{
    viewer { agent { capabilities } workedTasks(first: 100, status: [ASSIGNED]) { nodes { ${fields} } } }
    tasks(first: 100, filter: {status: [OPEN]}) { nodes { ${fields} } }
  }`);
  if (errors) throw new Error(errors[0].message);
  const capabilities = data.viewer.agent.capabilities;
  const matching = data.tasks.nodes.filter((task) => task.requiredCapabilities.some((word) => capabilities.includes(word)));
  for (const task of [...data.viewer.workedTasks.nodes, ...matching]) await doTask(task);
}

const client = createClient({
  url: `${url.replace(/^http/, "ws")}/graphql`,
  webSocketImpl: WebSocket,
  connectionParams: { "X-API-Key": key },
  retryAttempts: Infinity,
  shouldRetry: ({ code }) => code !== 4403, // retry during a server restart, but not with an invalid key
  on: { connected: catchUp },
});
setInterval(catchUp, 30_000); // a released task is open again without an event
const query = `subscription ($after: String) { taskPosted(after: $after) { cursor task { ${fields} } } }`;
const variables = {};
for (;;) {
  try {
    for await (const { data } of client.iterate({ query, variables })) {
      await doTask(data.taskPosted.task);
      variables.after = data.taskPosted.cursor; // where to resume
    }
  } catch (error) {
    const code = error?.[0]?.extensions?.code;
    if (code === "CURSOR_EXPIRED") delete variables.after; // catchUp lists the open tasks
    else if (code !== "SLOW_CONSUMER") throw error; // for example an invalid key
  }
}
