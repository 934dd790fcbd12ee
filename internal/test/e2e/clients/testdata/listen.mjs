// Listens for posted tasks through every cut, always from after the last cursor
// it has seen. One line of JSON for each task, and for each end that the client
// did not mend by itself.
import { open, print, reason } from "./clients.mjs";

const [name, url, key, mending] = process.argv.slice(2);
const query = `subscription ($after: String) { taskPosted(after: $after) { cursor task { title } } }`;
const variables = { after: "0" }; // sent as they are at the time, also by a client that retries

for (;;) {
  const run = open(name, url, key, mending === "retry");
  const ended = await new Promise((end) => {
    run({ query, variables }, {
      next: ({ data, errors }) => {
        if (errors) {
          end(reason(errors));
          return;
        }
        variables.after = data.taskPosted.cursor;
        print({ title: data.taskPosted.task.title });
      },
      error: (error) => end(reason(error)),
      complete: () => end({ code: "", message: "complete" }),
    });
  });
  print({ ended });
}
