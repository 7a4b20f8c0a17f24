// Which account is chosen, for parts of the page that GraphiQL draws and that are given nothing by us. It decides nothing.
import { createContext } from "react";

/** @type {React.Context<{name: string, role: string, token: string} | null>} null is "Anonymous" */
export const AccountContext = createContext(null);
