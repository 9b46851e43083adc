// The API's description as a page: /openapi.json, one fold for every operation.

function element(kind, text = "", ...children) {
  const made = document.createElement(kind);
  made.textContent = text;
  made.append(...children);
  return made;
}

// What a schema takes, in words.
function typed(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.map(typed).filter((word) => word !== "null").join(" or ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" or ");
  if (schema.type === "array") return `list of ${typed(schema.items ?? {})}`;
  return schema.format === "binary" ? "file" : schema.type ?? "anything";
}

function fields(heading, rows) {
  if (!rows.length) return [];
  const list = element("dl");
  for (const [name, text] of rows) list.append(element("dt", name), element("dd", text));
  return [element("h3", heading), list];
}

const row = (name, schema, required, said) =>
  [name, [typed(schema) + (required ? ", required" : ""), said ?? schema.description].filter(Boolean).join(": ")];

function parameters({ parameters: all = [] }) {
  return fields("Parameters", all.map((each) =>
    row(`${each.name} (${each.in})`, each.schema ?? {}, each.required, each.description)));
}

function requests({ requestBody }, schemas) {
  return Object.entries(requestBody?.content ?? {}).flatMap(([kind, { schema = {} }]) => {
    const { properties = {}, required = [] } = schema.$ref ? schemas[typed(schema)] : schema;
    return fields(`Request: ${kind}`,
      Object.entries(properties).map(([name, each]) => row(name, each, required.includes(name))));
  });
}

function responses({ responses: all }) {
  return fields("Answers", Object.entries(all).map(([status, { description, content = {} }]) =>
    [status, [description, ...Object.keys(content)].join(", ")]));
}

function operation(method, path, told, schemas) {
  const head = element("summary", "", element("b", method.toUpperCase()), path, element("span", told.summary));
  const text = told.description ? [element("p", told.description)] : [];
  return element("details", "", head, ...text, ...parameters(told), ...requests(told, schemas), ...responses(told));
}

const status = document.getElementById("status");
try {
  const { info, paths, components } = await (await fetch("/openapi.json")).json();
  const groups = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, told] of Object.entries(methods)) {
      const group = told.tags?.[0] ?? "";
      if (!groups.has(group)) groups.set(group, element("section", "", element("h2", group)));
      groups.get(group).append(operation(method, path, told, components?.schemas ?? {}));
    }
  }
  document.getElementById("operations").append(...groups.values());
  status.textContent = `${info.summary} Version ${info.version}.`;
} catch (error) {
  status.textContent = `The description cannot be read: ${error.message}`;
}
