// If one Airflow has several bundles, each has a prefix, with which its DAGs, Variables and connections begin. The address of this
// page, or of Airflow's window around it, names it: ?prefix=shop; or a run's DAG does.

import { el } from "./dom.js";

const OURS = /^(?:([a-z][a-z0-9_]*)_)?(?:reconcile_dual_writes|backfill_gap|apply_migrations)$/;

const prefixOf = (dagId) => OURS.exec(dagId)?.[1] ?? "";

function asked(name) {
  const own = new URLSearchParams(location.search).get(name);
  if (own !== null || window.parent === window) return own;
  try {
    return new URLSearchParams(window.parent.location.search).get(name);
  } catch {
    return null; // another origin frames us
  }
}

export const PREFIX = prefixOf(asked("dag_id") ?? `${asked("prefix") ?? ""}_backfill_gap`);

// The name of a DAG or Variable of ours in this bundle.
export const named = (name) => (PREFIX ? `${PREFIX}_${name}` : name);

// The bundles' prefixes, from ids of DAGs; "" for the bundle without one.
export const prefixesOf = (dagIds) => [...new Set(dagIds.filter((id) => OURS.test(id)).map(prefixOf))].sort();

const hrefOf = (prefix) => `?prefix=${encodeURIComponent(prefix)}`;

// The page to show instead, if this one's address names no bundle and the viewer may see others alone; null if this one is fine.
export const elsewhere = (prefixes) =>
  asked("prefix") === null && asked("dag_id") === null && prefixes.length > 0 && !prefixes.includes(PREFIX) ? hrefOf(prefixes[0]) : null;

// Links to the pages of the other bundles; nothing if there is just this one.
export function choice(prefixes) {
  if (prefixes.every((prefix) => prefix === PREFIX)) return null;
  const nameOf = (prefix) => prefix || "without a prefix";
  const shown = prefixes.map((prefix) => [" ", prefix === PREFIX ? el("strong", { "aria-current": "page" }, nameOf(prefix)) : el("a", { href: hrefOf(prefix) }, nameOf(prefix))]);
  return el("nav", { class: "quiet bundles", "aria-label": "Bundles" }, "Bundles in this Airflow:", ...shown.flat());
}
