// Follows the lines of docs/callout.md that make nc, in a page: publishes what it may and what it may not, and tells
// the page's server what became of it.
const tell = (what, detail = "") => fetch("/told", { method: "POST", body: `${what} ${detail}`.trim() });

(async () => {
  for await (const status of nc.status()) {
    tell(status.type, status.error?.message);
  }
})();
for (const subject of ["orders.shop.new", "orders.bank.new"]) {
  nc.publish(subject, "from a browser");
  await nc.flush();
  tell("published", subject);
}
