// How an operation comes into the editors: in a tab of its own, with the headers of the tab before. Nothing is run unless
// the caller says so.
import { pick, useGraphiQL, useGraphiQLActions } from "@graphiql/react";

/** @returns {(operation: {query: string, variables: string, operationName?: string}, runs?: boolean) => void} */
export function useOpenOperation() {
  const { addTab, setOperationName, run, stop } = useGraphiQLActions();
  const { queryEditor, variableEditor, headerEditor } = useGraphiQL(
    pick("queryEditor", "variableEditor", "headerEditor"),
  );
  return ({ query, variables, operationName }, runs = false) => {
    const headers = headerEditor.getValue();
    stop();
    addTab();
    queryEditor.setValue(query);
    variableEditor.setValue(variables);
    headerEditor.setValue(headers);
    if (operationName) setOperationName(operationName);
    if (variables) document.querySelector(".graphiql-editor-tools [data-name=variables]")?.click();
    if (runs) run();
  };
}

/** Whether there are editors to open something in. */
export function useEditorsReady() {
  return useGraphiQL((state) => Boolean(state.queryEditor && state.variableEditor && state.headerEditor));
}
