// Runs named operations side by side with one client. One line of JSON for each
// thing that happens to one of them.
import { open, print, reason } from "./clients.mjs";

const [name, url, key, operations] = process.argv.slice(2);
const run = open(name, url, key);
for (const [operation, payload] of Object.entries(JSON.parse(operations))) {
  run(payload, {
    next: ({ data, errors }) => print({ operation, data, ended: errors && reason(errors) }),
    error: (error) => print({ operation, ended: reason(error) }),
    complete: () => print({ operation, complete: true }),
  });
}
