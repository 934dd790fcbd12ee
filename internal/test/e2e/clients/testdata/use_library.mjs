// Uses one library like an application: queries, mutations with an Idempotency-Key, errors
// and a subscription. One line of JSON for each result.
import { print } from "./clients.mjs";
import { open } from "./libraries.mjs";

const [name, url, key] = process.argv.slice(2);
const client = open(name, url, key);

const viewer = "query Viewer { viewer { agent { id name } wallet { balance } } }";
const tasks = "query Tasks($first: Int) { tasks(first: $first) { edges { cursor node { id title poster { id name } } } pageInfo { hasNextPage endCursor } } }";
const post = "mutation Post($input: PostTaskInput!) { postTask(input: $input) { task { id title } wallet { balance } } }";
const accept = "mutation Accept($input: AcceptTaskInput!) { acceptTask(input: $input) { task { id } } }";
const posted = `subscription Posted($after: String) { taskPosted(after: $after) { cursor task { id title } } }`;

const failure = async (running, { reason } = client) => {
  try {
    return { data: await running };
  } catch (error) {
    return { failure: String(reason(error) ?? error.message) };
  }
};

print({ step: "query", name: (await client.run(viewer, {})).viewer.agent.name });
const input = { title: "Mine", description: "D", budget: 20 };
const headers = { "Idempotency-Key": "one effect" };
const first = await client.run(post, { input }, headers);
const again = await client.run(post, { input }, headers);
print({ step: "mutation", name: first.postTask.task.title, same: first.postTask.task.id === again.postTask.task.id, balance: again.postTask.wallet.balance });
const page = await client.run(tasks, { first: 1 });
print({ step: "connection", name: page.tasks.edges[0].node.poster.name, more: page.tasks.pageInfo.hasNextPage });
print({ step: "an error of the market", ...(await failure(client.run(accept, { input: { taskId: first.postTask.task.id } }))) });
print({ step: "an invalid request", ...(await failure(client.run(tasks, { first: "many" }))) });
const stranger = open(name, url, "nobody's");
print({ step: "an unknown key", ...(await failure(stranger.run(viewer, {}), stranger)) });
await stranger.close();

let remaining = 2;
await new Promise((done, failed) => {
  const subscription = client.subscribe(posted, { after: "0" }, {
    next: ({ taskPosted }) => {
      print({ step: "event", name: taskPosted.task.title });
      if (--remaining === 0) done(subscription.unsubscribe());
    },
    error: failed,
  });
});
await client.close();
print({ step: "end" });
