// Draws the app, once it is known what the server allows and who was signed in. The styles are in the order in which they
// have to stand.
import "@graphiql/react/style.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "graphiql/graphiql.css";
import "./base.css";
import "./style.css";
import "./answer.css";
import "./explain.css";
import "./live.css";
import "./operations.css";
import "./schema.css";
import "./monaco.js";
import { createRoot } from "react-dom/client";
import { App } from "./app.jsx";
import { readConfig } from "./config.js";
import { restore } from "./session.js";

export async function start(root) {
  const config = await readConfig();
  const restored = await restore(config.endpoint);
  root.replaceChildren();
  createRoot(root).render(<App config={config} restored={restored} />);
}
