// In the place of the suite's own client, which knows fixed addresses only: the same requests, to PRODUCTS_URL and ROUTER_URL.
async function ask(url, request, headers = {}) {
  const response = await fetch(url, {
    method: "POST",
    headers: { accept: "application/json", "content-type": "application/json", ...headers },
    body: JSON.stringify(request),
  });
  const isJson = response.ok && response.headers.get("content-type")?.startsWith("application/json");
  return isJson ? response.json() : response.text();
}

exports.productsRequest = (request, headers) => ask(process.env.PRODUCTS_URL, request, headers);
exports.routerRequest = (request, headers) => ask(process.env.ROUTER_URL, request, headers);
