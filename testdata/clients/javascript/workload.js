// Follows the lines of docs/callout.md that make nc, in one file with them: publishes to each subject that comes
// on standard input, and prints what became of it and of the connection.
import { createInterface } from "node:readline";

const print = (what, detail = "") => console.log(`${what} ${detail}`.trim());

(async () => {
  for await (const status of nc.status()) {
    print(status.type, status.error?.message);
  }
})();
print("connected");
for await (const subject of createInterface({ input: process.stdin })) {
  nc.publish(subject, "from JavaScript");
  try {
    await nc.flush();
    print("published", subject);
  } catch (err) {
    print("not published", err.message); // the connection has gone meanwhile
  }
}
await nc.close();
