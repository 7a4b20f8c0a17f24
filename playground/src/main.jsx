// Where the page starts: it asks the server for its settings, then draws the app. No layout and no GraphQL here.
import "./monaco.js";
import "./fonts.css";
import "@graphiql/react/style.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "graphiql/graphiql.css";
import "./style.css";
import { createRoot } from "react-dom/client";
import { App } from "./app.jsx";
import { readConfig } from "./config.js";

readConfig().then((config) => {
  createRoot(document.getElementById("root")).render(<App config={config} />);
});
