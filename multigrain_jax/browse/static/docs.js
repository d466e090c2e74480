// The description of the API, made readable.
import { element } from "./dom.js";

const main = document.getElementById("operations");
const api = await (await fetch("/openapi.json")).json();
main.replaceChildren(element("p", {}, api.info.description));
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    main.append(describe(path, method, operation));
  }
}

function describe(path, method, operation) {
  const parts = [
    element("h2", {}, `${method.toUpperCase()} ${path}`),
    element("p", {}, operation.summary),
  ];
  if (operation.requestBody) {
    const types = Object.keys(operation.requestBody.content).join(", ");
    parts.push(element("p", {}, `Body: ${types}`));
  }
  const rows = operation.parameters.map((p) => [`${p.name} (${p.schema.type})`, p.description]);
  if (rows.length) parts.push(list(rows));
  const answer = operation.responses["200"].content;
  for (const [type, { schema }] of Object.entries(answer)) {
    const shape = schema.properties ? JSON.stringify(example(schema)) : "";
    parts.push(element("p", {}, `Answer: ${type} `, element("code", {}, shape)));
  }
  const refusals = Object.entries(operation.responses).filter(([status]) => status !== "200");
  parts.push(list(refusals.map(([status, { description }]) => [status, description])));
  return element("section", {}, ...parts);
}

function list(rows) {
  return element(
    "dl",
    {},
    ...rows.flatMap(([name, words]) => [element("dt", {}, name), element("dd", {}, words)]),
  );
}

function example(schema) {
  if (schema.type === "array") return [example(schema.items)];
  if (schema.type === "object") {
    const entries = Object.entries(schema.properties ?? {});
    return Object.fromEntries(entries.map(([name, inner]) => [name, example(inner)]));
  }
  return schema.type === "string" ? "…" : 0;
}
