// Draws the API from openapi.json.
const main = document.getElementById("main");

function add(parent, tag, text = "") {
  const element = parent.appendChild(document.createElement(tag));
  element.textContent = text;
  return element;
}

const nameOf = reference => reference.split("/").pop();

function typeOf(schema) {
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.items) return `list of ${typeOf(schema.items)}`;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  return schema.enum ? schema.enum.map(value => JSON.stringify(value)).join(" or ") : schema.type ?? "any";
}

function limitsOf(schema) {
  const parts = [schema, ...schema.anyOf ?? []];
  const first = name => parts.map(part => part[name]).find(value => value !== undefined);
  const said = [];
  if (first("minimum") !== undefined) said.push(`${first("minimum")} to ${first("maximum")}`);
  if (first("maxLength") !== undefined) said.push(`at most ${first("maxLength")} characters`);
  if (schema.default !== undefined) said.push(`by default ${JSON.stringify(schema.default)}`);
  return said.join("; ");
}

function curl(path, method, body) {
  const url = new URL(path.slice(1), location.href);
  if (!body) return `curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${url}`;
  return `curl ${url} -H 'Content-Type: application/json' -d '${JSON.stringify(body)}'`;
}

fetch("openapi.json").then(response => response.json()).then(api => {
  const schemas = api.components.schemas;
  const asked = new Set();
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const body = operation.requestBody?.content["application/json"].schema;
      if (body) asked.add(nameOf(body.$ref));
      add(main, "h2", `${method.toUpperCase()} ${path}`);
      add(main, "p", operation.description ?? operation.summary);
      add(main, "pre", curl(path, method, body && schemas[nameOf(body.$ref)].examples?.[0]));
      for (const [status, answer] of Object.entries(operation.responses))
        add(main, "div", `${status}: ${answer.description}`);
    }
  const names = Object.keys(schemas).sort((a, b) => asked.has(b) - asked.has(a));
  for (const name of names) {
    add(main, "h2", name);
    const [said, fields = ""] = (schemas[name].description ?? "").split("Attributes:\n");
    add(main, "p", said.trim());
    const table = add(main, "table");
    for (const [field, schema] of Object.entries(schemas[name].properties ?? {})) {
      const row = add(table, "tr");
      const told = fields.match(new RegExp(`^ *${field}: ([^]*?)(?=\n *\\w+: |$(?![^]))`, "m"));
      add(row, "td", field);
      add(row, "td", typeOf(schema));
      add(row, "td", schema.description ?? told?.[1].replace(/\s+/g, " ") ?? "");
      add(row, "td", limitsOf(schema));
    }
  }
}).catch(error => add(main, "p", `The API cannot be shown: ${error.message}`));
