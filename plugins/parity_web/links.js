// Links from a difference to the tools in which a person looks next, by the installation's templates. model/links.py checks the
// templates; here values are put in, each encoded, and an address with another origin than its template's is no link.

import { link } from "./dom.js";
import { nameable } from "./facts.js";

const NAMES = { document: "Document", row: "Row", sentry: "Sentry" };

const encoded = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
const whole = (text) => (text && nameable(text) ? text : null); // not as a report shortened or escaped it

// The Firebase console writes a path with ~2F for each slash. How it writes other characters than these isn't documented.
const firebase = (path) => (/^[A-Za-z0-9_/-]+$/.test(path) ? path.split("/").map((part) => `~2F${part}`).join("") : null);

// The values of a template's placeholders, by name, already encoded; null if there is none. `about`: {collection, key, path}.
function values(links, { collection, key, path }) {
  const table = links.tables?.[collection] ?? {};
  const [place, label] = [whole(path), whole(key)];
  const plain = { project: links.project, database: links.database, id: place?.split("/").at(-1), collection, key: label, schema: table.schema, table: table.table, table_oid: table.oid, key_column: table.key_column };
  return {
    ...Object.fromEntries(Object.entries(plain).map(([name, value]) => [name, value === null || value === undefined || value === "" ? null : encoded(String(value))])),
    path: place && place.split("/").map(encoded).join("/"), firebase_path: place && firebase(place),
  };
}

export function addressOf(template, values) {
  const names = [...template.matchAll(/\{([a-z_]+)\}/g)].map(([, name]) => name);
  if (names.some((name) => !Object.hasOwn(values, name) || values[name] === null)) return null;
  try {
    const [made, own] = [template.replace(/\{([a-z_]+)\}/g, (_, name) => values[name]), template.replace(/\{[a-z_]+\}/g, "x")].map((text) => new URL(text));
    return made.protocol === "https:" && made.origin === own.origin && !made.username ? made.href : null;
  } catch {
    return null;
  }
}

// The links of a difference, in the order of NAMES.
export function linksTo(links, about) {
  if (!links) return [];
  const filling = values(links, about);
  return Object.entries(NAMES).flatMap(([name, says]) => {
    const href = Object.hasOwn(links.templates, name) && addressOf(links.templates[name], filling);
    if (!href) return [];
    const made = link(href, says);
    made.target = "_blank";
    made.rel = "noreferrer";
    made.append(Object.assign(document.createElement("span"), { className: "unseen", textContent: ` of ${about.collection} ${about.key}, in a new tab` }));
    return [" ", made];
  });
}
