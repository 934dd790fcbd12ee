// Runs one operation and prints its result, or why there is none.
import { clients } from "./clients.mjs";

const [name, url, key, query] = process.argv.slice(2);
const client = clients[name](url, key);
const print = (line) => {
  console.log(JSON.stringify(line));
  process.exit(0);
};
client.run(
  { query },
  (result) => print(result),
  (error) => print({ refused: error?.message || error?.reason }),
  () => print({ refused: "complete without a result" }),
);
