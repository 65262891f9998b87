// Small helpers to build the page. Text goes in as text nodes only: an id from a report may hold anything.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") made[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

// A document's id or path: set apart, so that right-to-left text can't reorder its surroundings.
export const code = (text) => el("code", { dir: "auto" }, String(text));

// A table's name may be cut after an underscore, nowhere else.
export const breakable = (name) => name.split("_").flatMap((part, i) => (i ? ["_", el("wbr"), part] : [part]));

export const number = (value) => new Intl.NumberFormat("en").format(value);

export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

export function span(seconds) {
  const past = Math.max(0, Math.round(seconds));
  if (past < 60) return `${past} s`;
  if (past < 3600) return `${Math.round(past / 60)} min`;
  if (past < 172800) return `${Math.round(past / 3600)} h`;
  return `${Math.round(past / 86400)} days`;
}

export const age = (iso) => (Date.now() - Date.parse(iso)) / 1000;

// The time zone that the viewer chose in Airflow's window; UTC if none was chosen, or this browser doesn't know it.
function zone() {
  try {
    const kept = localStorage.getItem("timezone") ?? "UTC";
    const name = kept.replaceAll('"', "");
    new Intl.DateTimeFormat("en", { timeZone: name });
    return name;
  } catch {
    return "UTC";
  }
}

function shown(iso, parts) {
  const made = new Intl.DateTimeFormat("en-GB", { timeZone: zone(), hourCycle: "h23", hour: "2-digit", minute: "2-digit", ...parts });
  const part = Object.fromEntries(made.formatToParts(new Date(iso)).map(({ type, value }) => [type, value]));
  return `${part.year ? `${part.year}-${part.month}-${part.day} ` : ""}${part.hour}:${part.minute} ${part.timeZoneName}`;
}

// An instant with its zone, as "2026-11-29 07:05 UTC"; and its time alone, for today's.
export const when = (iso) => shown(iso, { year: "numeric", month: "2-digit", day: "2-digit", timeZoneName: "short" });
export const clock = (iso) => shown(iso, { timeZoneName: "short" });

// "3 min ago", with the whole time for a pointer and for a screen reader.
export function ago(iso) {
  if (!iso) return el("span", { class: "quiet" }, "never");
  return el("time", { datetime: iso, title: when(iso) }, `${span(age(iso))} ago`);
}

// The page lives in a sandboxed frame that may not navigate the window around it, but shares its origin: the link is
// followed by the window's own document. Outside of a frame this is an ordinary link.
export function link(href, ...children) {
  const follow = (event) => {
    if (window.parent === window || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const outside = window.parent.document.createElement("a");
    outside.href = event.currentTarget.href;
    outside.target = event.currentTarget.target;
    outside.rel = event.currentTarget.rel;
    window.parent.document.body.append(outside);
    outside.click();
    outside.remove();
  };
  return el("a", { href: new URL(href, new URL("../", document.baseURI)).href, onclick: follow }, ...children);
}

export const runLink = (dagId, runId, ...children) =>
  link(`dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(runId)}`, ...(children.length ? children : [runId]));

// A run's name for people: how, by whom and when it was begun. Its id is in the link.
export function nameOf(run) {
  const by = run.triggering_user_name ? ` by ${run.triggering_user_name}` : "";
  const at = run.run_after ?? run.start_date;
  return `${run.run_type ?? "run"}${by}${at ? `, ${when(at)}` : ` ${run.dag_run_id}`}`;
}

export const named = (run) => runLink(run.dag_id, run.dag_run_id, nameOf(run));

export function say(text) {
  document.getElementById("said").textContent = text;
}

// Takes Airflow's theme, if the viewer chose one; else the system's.
export function followTheme() {
  const root = document.documentElement;
  let outside = null;
  try {
    outside = window.parent !== window ? window.parent.document.documentElement : null;
  } catch {
    return; // another origin frames us: the policy forbids it, and the system's theme is good enough
  }
  if (!outside) return;
  const copy = () => {
    const theme = ["dark", "light"].find((name) => outside.classList.contains(name));
    if (theme) root.dataset.theme = theme;
  };
  new MutationObserver(copy).observe(outside, { attributes: true, attributeFilter: ["class"] });
  copy();
}
