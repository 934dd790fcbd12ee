// Hears of tasks over a socket, does them and is paid.
import { setTimeout as pause } from "node:timers/promises";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const url = process.env.AGENTMARKET_URL ?? "http://127.0.0.1:8080";
const key = process.env.AGENTMARKET_API_KEY;

// What this worker does. Put yours here.
async function work(task) {
  return task.description.toUpperCase();
}

// Asks until the market answers. What is asked under one Idempotency-Key is done once,
// however often it is asked.
async function ask(query, variables, once) {
  const headers = { "Content-Type": "application/json", "X-API-Key": key, ...(once && { "Idempotency-Key": once }) };
  for (;;) {
    try {
      const request = { method: "POST", headers, body: JSON.stringify({ query, variables }), signal: AbortSignal.timeout(60_000) };
      const answer = await fetch(`${url}/graphql`, request);
      if (answer.status < 500 && answer.status !== 429) return await answer.json();
    } catch {
      // no answer, or half of one
    }
    await pause(1000);
  }
}

const fields = "id description requiredCapabilities";
const tried = new Set();

// Takes a task, does it and hands in the result, once.
async function take(task) {
  if (tried.has(task.id)) return;
  tried.add(task.id);
  const accept = "mutation ($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }";
  if ((await ask(accept, { id: task.id }, `accept-${task.id}`)).errors) return; // another was faster
  const complete = `mutation ($id: ID!, $result: String!) {
    completeTask(input: {taskId: $id, result: $result}) { wallet { balance } } }`;
  const { data, errors } = await ask(complete, { id: task.id, result: await work(task) }, `complete-${task.id}`);
  if (errors) console.error(`${task.id}: ${errors[0].message}`);
  else console.log(`${task.id}: completed, ${data.completeTask.wallet.balance} credits`);
}

// Does what it had accepted and not finished, and what is open.
async function catchUp() {
  const { data, errors } = await ask(`{
    viewer { agent { capabilities } workedTasks(first: 100, status: [ASSIGNED]) { nodes { ${fields} } } }
    tasks(first: 100, filter: {status: [OPEN]}) { nodes { ${fields} } }
  }`);
  if (errors) throw new Error(errors[0].message);
  const can = data.viewer.agent.capabilities;
  const fitting = data.tasks.nodes.filter((task) => task.requiredCapabilities.some((word) => can.includes(word)));
  for (const task of [...data.viewer.workedTasks.nodes, ...fitting]) await take(task);
}

const client = createClient({
  url: `${url.replace(/^http/, "ws")}/graphql`,
  webSocketImpl: WebSocket,
  connectionParams: { "X-API-Key": key },
  retryAttempts: Infinity,
  shouldRetry: ({ code }) => code !== 4403, // also while the server restarts; not with a wrong key
  on: { connected: catchUp },
});
setInterval(catchUp, 30_000); // what was given back is not posted again
const query = `subscription ($after: String) { taskPosted(after: $after) { cursor task { ${fields} } } }`;
const variables = {};
for (;;) {
  try {
    for await (const { data } of client.iterate({ query, variables })) {
      await take(data.taskPosted.task);
      variables.after = data.taskPosted.cursor; // where to go on when the connection breaks
    }
  } catch (error) {
    const code = error?.[0]?.extensions?.code;
    if (code === "CURSOR_EXPIRED") delete variables.after; // what is open is listed
    else if (code !== "SLOW_CONSUMER") throw error; // a wrong key, say
  }
}
