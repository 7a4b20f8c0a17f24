// Opens the edition that the address names (`?app=urql`), each as files of its own; without one, a list of them. No GraphQL here.
const EDITIONS = {
  apollo: ["Apollo Client", () => import("../apollo/main.js")],
  urql: ["urql", () => import("../urql/main.js")],
  relay: ["Relay", () => import("../relay/main.js")],
  "codegen-fetch": ["generated code and fetch", () => import("../codegen-fetch/main.js")],
};

const asked = new URLSearchParams(location.search);
const [, open = list] = EDITIONS[asked.get("app")] ?? [];
open();

function list() {
  const links = Object.entries(EDITIONS).map(([app, [name]]) => {
    asked.set("app", app);
    const link = Object.assign(document.createElement("a"), { href: `?${asked}`, textContent: `XP Graph with ${name}` });
    const line = document.createElement("li");
    line.append(link);
    return line;
  });
  const whole = document.createElement("ul");
  whole.append(...links);
  document.getElementById("app").append(whole);
}
