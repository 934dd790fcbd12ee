// Runs the graphql-http audits against a server: one line of JSON for each.
import { serverAudits } from "graphql-http";

import { print } from "./clients.mjs";

const [url] = process.argv.slice(2);
for (const audit of serverAudits({ url, fetchFn: fetch })) {
  const { status, reason } = await audit.fn();
  print({ id: audit.id, name: audit.name, status, reason });
}
