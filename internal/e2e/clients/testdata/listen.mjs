// Listens for posted tasks through every cut: each time it subscribes again
// after the last cursor it has seen. One line of JSON for each task and each cut.
import { clients } from "./clients.mjs";

const [name, url, key] = process.argv.slice(2);
const query = `subscription ($after: String) { taskPosted(after: $after) { cursor task { title } } }`;
let after = "0";

for (;;) {
  const client = clients[name](url, key);
  const reason = await new Promise((ended) => {
    client.run(
      { query, variables: { after } },
      ({ data, errors }) => {
        if (!data?.taskPosted) {
          ended(JSON.stringify(errors));
          return;
        }
        after = data.taskPosted.cursor;
        console.log(JSON.stringify({ title: data.taskPosted.task.title, cursor: after }));
      },
      (error) => ended(String(error?.message ?? error?.code ?? error)),
      () => ended("complete"),
    );
  });
  client.close();
  console.log(JSON.stringify({ cut: reason }));
  await new Promise((again) => setTimeout(again, 20));
}
