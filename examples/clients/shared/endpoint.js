// Where the graph is: another origin than the page's, in `?graph=…`; the development server's address without it.
const given = new URLSearchParams(location.search).get("graph");

export const endpoint = given ?? "http://127.0.0.1:8080/graphql";
export const socketEndpoint = endpoint.replace(/^http/, "ws");
