// Where the page starts: it draws its name at once, asks the server for its settings, and has the app come as files of its
// own, because the editor in it is large. No layout and no GraphQL here.
import "./fonts.css";
import "./shell.css";
import icon from "./icon.svg";

const root = document.getElementById("root");
root.innerHTML = `<header class="xp-shell"><h1><img src="${icon}" alt="" width="20" height="20"> XP Graph</h1></header>
<p class="xp-loading" role="status">Loading the editor …</p>`;

import("./start.jsx").then(
  ({ start }) => start(root),
  (error) => {
    root.querySelector(".xp-loading").textContent = `The editor cannot be loaded: ${error.message}`;
  },
);
