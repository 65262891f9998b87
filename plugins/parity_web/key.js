// The history of one key: from runs' lists, people's requests, and the target's journal. The page has no connection to a
// database: a run that names the key leaves the journal's part as its XCom `histories`.

import * as api from "./api.js";
import { button, formButton, OFF, state } from "./buttons.js";
import { ago, code, count, el, link, named, nameOf, runLink, say, when } from "./dom.js";
import { asksAbout, dedupe, foldedStates, journalEvents, lineOf, nameable, plain, stateIn } from "./facts.js";
import { linksTo } from "./links.js";

const AT_A_TIME = 24; // past runs whose lists are read: each is up to 100 KB

export const keyButton = (collection, key) =>
  nameable(key) ? el("button", { type: "button", class: "plain", onclick: () => openKey(collection, key) }, "History", el("span", { class: "unseen" }, ` of ${collection} ${key}`)) : null;

// A field for any key, open or not.
export function keyCard(declared) {
  const problem = el("p", { class: "problem", role: "alert" });
  const input = el("input", { type: "text", id: "key-name", autocomplete: "off", placeholder: "posts:AbC123", "aria-describedby": "key-help" });
  const ask = (event) => {
    event.preventDefault();
    const text = input.value.trim();
    const at = text.indexOf(":");
    const fault = at < 1 || at === text.length - 1 ? "Write it as collection:key." : declared.includes(text.slice(0, at)) ? "" : `There is no collection ${text.slice(0, at)}.`;
    problem.textContent = fault;
    if (!fault) openKey(text.slice(0, at), text.slice(at + 1));
  };
  return el("section", { class: "card", id: "key" }, el("h2", {}, "History of one key"),
    el("form", { class: "keyed", onsubmit: ask }, el("div", { class: "field" }, el("label", { for: "key-name" }, "Collection and key"), input,
      el("small", { id: "key-help", class: "quiet" }, "As collection:key, open or not.")), el("button", { type: "submit" }, "Show its history")), problem);
}

async function openKey(collection, key) {
  const name = lineOf(collection, key);
  const heading = el("h2", { id: "key-title", tabindex: "-1" }, "History of ", code(name));
  const body = el("div", { "aria-busy": "true" }, el("p", { class: "quiet" }, "Loading…"));
  const close = () => dialog.close();
  const dialog = el("dialog", { class: "form wide", "aria-labelledby": "key-title", onclose: () => dialog.remove() }, heading, body,
    el("p", { class: "buttons" }, button("Close", close)));
  document.body.append(dialog);
  dialog.showModal();
  heading.focus();
  const seen = { states: [], read: 0, journal: null };
  const more = async () => {
    body.setAttribute("aria-busy", "true");
    try {
      await look(collection, key, seen);
      body.replaceChildren(...shown(collection, key, seen, more, close));
      say(`The history of ${name} is shown.`);
    } catch (error) {
      body.replaceChildren(el("p", { class: "problem", role: "alert" }, error.message));
    }
    body.setAttribute("aria-busy", "false");
  };
  await more();
}

// Reads the lists of the next past runs, and the newest journal's part of a run that named the key.
async function look(collection, key, seen) {
  const ended = state.runs.filter(api.ended);
  const next = ended.slice(seen.read, seen.read + AT_A_TIME);
  for (let i = 0; i < next.length; i += 6)
    seen.states.push(...(await Promise.all(next.slice(i, i + 6).map((run) => stateOf(run, collection, key)))).filter(Boolean));
  seen.read += next.length;
  seen.left = ended.length - seen.read;
  const line = lineOf(collection, key);
  seen.asker ??= ended.find((run) => run.conf?.keys?.includes(line));
  if (seen.asker && !seen.journal) {
    const histories = await api.histories(seen.asker.dag_run_id);
    seen.journal = histories.find((h) => h.collection === collection && h.key === key) ?? null;
  }
}

async function stateOf(run, collection, key) {
  const report = await api.report(api.RECONCILE, run.dag_run_id).catch(() => null);
  if (!report?.open) return null;
  const rows = report.listed?.pages ? await api.openList(api.RECONCILE, run.dag_run_id, report.listed.pages).catch(() => null) : [];
  return stateIn(report, rows, run, collection, key);
}

function shown(collection, key, seen, more, close) {
  const line = lineOf(collection, key);
  const people = state.runs.flatMap((run) => asksAbout(run, collection, key, seen.states).map((says) => ({ at: run.run_after, says, run, by: run.triggering_user_name })));
  const events = dedupe([...foldedStates(seen.states), ...people, ...journalEvents(seen.journal)]);
  const runOf = (id) => state.runs.find((r) => r.dag_run_id === id);
  const by = (e) => { const run = e.run ?? runOf(e.run_id); return run ? named(run) : e.run_id ? e.run_id : ""; };
  const now = seen.journal?.open ?? null;
  const path = seen.states.find((s) => s.row?.path)?.row.path ?? now?.path ?? null;
  const to = linksTo(state.links, { collection, key, path });
  const command = `make difference name=${/^[\w:./-]+$/.test(line) ? line : `'${line.replaceAll("'", "'\\''")}'`}`;
  const copied = el("span", { role: "status", class: "quiet" });
  const oldest = seen.states.at(-1)?.at;
  return [
    path && el("p", { class: "quiet" }, code(path)),
    to.length > 0 && el("p", {}, "Open:", to),
    el("table", {}, el("thead", {}, el("tr", {}, ["When", "What", "Run"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, events.map((e) => el("tr", {}, el("td", { "data-label": "When" }, when(e.at)), el("td", { "data-label": "What" }, e.says), el("td", { "data-label": "Run" }, by(e)))))),
    !events.length && el("p", {}, "Nothing is known of it here."),
    el("p", { class: "quiet" }, seen.states.length ? `From the lists of ${count(seen.states.length, "run")}, back to ${when(oldest)}. ` : "No list was left by these runs. ",
      seen.journal ? ["The journal as ", named(seen.asker), " found it; it keeps 30 days."] : "The journal, which has this bundle's writes of 30 days, wasn't asked."),
    el("p", { class: "buttons" }, seen.left > 0 && button(`Look further back (${count(seen.left, "run")})`, more),
      askButton(line, close)),
    el("p", {}, "The document and the row side by side, with content, for whoever may read both databases, in a terminal where Airflow runs:"),
    el("pre", { class: "conf" }, command),
    el("p", { class: "buttons" }, button("Copy", () => navigator.clipboard?.writeText(command).then(() => (copied.textContent = "Copied."), () => (copied.textContent = "Copying isn't allowed here: select it."))), copied),
  ].filter(Boolean);
}

function askButton(line, close) {
  const made = formButton("Ask the journal…", `Ask the journal about ${line}`, { preset: { keys: [line] }, fixed: OFF });
  made?.addEventListener("click", close);
  return made;
}
