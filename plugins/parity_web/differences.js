// Open differences: by collection and verdict, one by one, and the samples of a report.

import * as api from "./api.js";
import { ALONE, cell, download, excuseButton, excuseLineButton, formButton, pressButton, repairTitle, state, sweepButton } from "./buttons.js";
import { age, ago, breakable, code, count, el, number, span, when } from "./dom.js";
import { columnsOf, csvOf, excuseTheseOf, FILTERS, lineOf, linesOf, nameable, narrowed, plain, reasonsOf, repairTheseOf } from "./facts.js";
import { keyButton } from "./key.js";
import { linksTo } from "./links.js";

export function findingsCard(problems, all) {
  const items = problems.map((f) => {
    const line = all.find((l) => l.name === f.collection);
    const shown = line?.samples.filter((s) => s.verdict === f.verdict && !s.excused) ?? [];
    const causes = Object.entries(f.causes).filter(([cause]) => cause !== "unknown").map(([cause, n]) => `${number(n)} ${plain(cause)}`);
    return el("li", { class: "finding" },
      el("div", {}, el("strong", {}, f.collection), " ", el("span", { class: `chip ${f.verdict}` }, `${number(f.number)} ${f.verdict}`),
        el("p", { class: "quiet" }, [`since ${when(f.since)} (${span(age(f.since))})`, ...causes].join(", ")),
        f.verdict === "stale" && columnsOf(line?.columns) && el("p", {}, `Differs in ${columnsOf(line.columns)}.`),
        reasonList(reasonsOf(f, line)),
        f.reasons.size > 0 && f.alert && el("p", {}, f.alert.text)),
      el("p", { class: "buttons" }, pressButton(f.alert?.press, repairTitle([f]), problems.length === 1 && "primary", `${f.verdict} ${f.collection}`), excuseLineButton(f, shown), sweepButton(f.collection)),
      shown.length > 0 && el("details", { class: "wide" },
        el("summary", {}, `${count(shown.length, "sample")}`, el("span", { class: "unseen" }, ` of ${f.verdict} ${f.collection}`)),
        samples({ name: f.collection, samples: shown })));
  });
  return el("section", { class: "card", id: "open" }, el("h2", {}, "Open differences"), el("ul", { class: "bare" }, items));
}

// --- all open differences ----------------------------------------------------------------------------------------------

const list = { run: null, rows: null, filters: {}, open: false }; // kept over a refresh
const AT_ONCE = 200; // lines shown; filters and the CSV take all

// How many differences the list holds; excused ones are no open ones.
function listedOf({ listed, open }) {
  const excused = Math.min(listed.of, open.filter((line) => line.excused).reduce((sum, line) => sum + line.number, 0));
  const left = listed.of - excused;
  return [left > 0 && count(left, "open difference"), excused > 0 && `${number(excused)} excused`].filter(Boolean).join(", ");
}

export function listCard(report, run) {
  const { listed } = report;
  if (!listed?.of || !run) return null;
  const body = el("div", {});
  const load = async () => {
    try {
      if (list.run !== run.dag_run_id) Object.assign(list, { run: run.dag_run_id, rows: await api.openList(api.RECONCILE, run.dag_run_id, listed.pages) });
      body.replaceChildren(...listBody(listed));
    } catch (error) {
      body.replaceChildren(el("p", { class: "problem", role: "alert" }, `The list could not be loaded: ${error.message}`));
    }
  };
  const fold = el("details", { ontoggle: () => { list.open = fold.open; if (fold.open && !body.childElementCount) load(); } },
    el("summary", {}, `List all: search, choose, download`), body);
  fold.open = list.open;
  if (list.open && list.run === run.dag_run_id) body.replaceChildren(...listBody(listed));
  return el("section", { class: "card", id: "list" }, el("h2", {}, `One by one: ${listedOf(report)}`), fold);
}

function listBody(listed) {
  const lines = el("tbody", {});
  const amount = el("p", { class: "quiet", role: "status" });
  const bar = el("p", { class: "buttons chosen" });
  const acts = (r) => state.known.rules?.drift.includes(r.verdict) && !r.excused_by && nameable(r.key) && state.may.trigger;
  const lookup = { ...state.known, lines: linesOf(list.rows) };
  const shown = () => narrowed(list.rows, list.filters);
  const fill = () => {
    const rows = shown();
    const all = el("button", { type: "button", onclick: () => { rows.filter(acts).forEach((r) => state.chosen.add(lineOf(r.collection, r.key))); draw(); } }, `Choose all ${number(rows.filter(acts).length)}`);
    const none = el("button", { type: "button", onclick: () => { state.chosen.clear(); draw(); } }, "Choose none");
    const save = el("button", { type: "button", onclick: () => download("open-differences.csv", csvOf(shown())) }, "Download CSV");
    const these = list.rows.filter((r) => acts(r) && state.chosen.has(lineOf(r.collection, r.key)));
    bar.replaceChildren(...(state.may.trigger ? [all] : []), ...(these.length ? [none] : []), save, ...chosenButtons(these, lookup));
  };
  const draw = () => {
    const rows = shown();
    amount.textContent = `${count(rows.length, "difference")}${rows.length > AT_ONCE ? `, the first ${AT_ONCE} shown` : ""}.`;
    lines.replaceChildren(...rows.slice(0, AT_ONCE).map((r) => listLine(r, acts(r), fill)));
    fill();
  };
  const search = el("input", { type: "search", id: "list-text", value: list.filters.text ?? "", oninput: () => { list.filters.text = search.value; draw(); } });
  const selects = Object.entries(FILTERS).map(([name, options]) => {
    const select = el("select", { id: `list-${name}`, onchange: () => { list.filters[name] = select.value; draw(); } }, el("option", { value: "" }, "any"), options(list.rows).map((o) => el("option", { value: o }, plain(o))));
    select.value = list.filters[name] ?? "";
    return el("div", { class: "field" }, el("label", { for: select.id }, name === "older" ? "older than" : name === "excused" ? "open or excused" : name), select);
  });
  draw();
  const cut = listed.rows < listed.of && el("p", { class: "problem" }, `The list holds ${number(listed.rows)} of ${number(listed.of)}, the oldest open ones first. `, state.may.trigger && "A run that you trigger lists up to 10,000: ", state.may.trigger && formButton("List more…", "List the open differences", { preset: {}, fixed: ALONE }));
  return [cut, el("div", { class: "filters" }, el("div", { class: "field" }, el("label", { for: "list-text" }, "search"), search), selects), amount, bar,
    el("table", {}, el("caption", { class: "unseen" }, "Open differences"), el("thead", {}, el("tr", {}, ["", "Collection", "Verdict", "Key", "Since", "Why"].map((h) => el("th", { scope: "col" }, h || el("span", { class: "unseen" }, "Chosen"))))), lines)].filter(Boolean);
}

function listLine(r, acts, fill) {
  const id = lineOf(r.collection, r.key);
  const box = acts && el("input", { type: "checkbox", "aria-label": `Choose ${r.collection} ${r.key}`, checked: state.chosen.has(id), onchange: () => { box.checked ? state.chosen.add(id) : state.chosen.delete(id); fill(); } });
  const why = [r.columns?.length > 0 && `differs in ${r.columns.join(", ")}`, r.reason && plain(r.reason), r.cause && plain(r.cause), r.excused_by && `excused by ${r.excused_by}`];
  return el("tr", {}, cell("Chosen", box || ""), cell("Collection", breakable(r.collection)), cell("Verdict", el("span", { class: `chip ${r.verdict}` }, plain(r.verdict))),
    cell("Key", code(r.key), r.path && el("p", { class: "quiet" }, code(r.path))), cell("Since", ago(r.since)), cell("Why", why.filter(Boolean).join(" · "), el("p", {}, keyButton(r.collection, r.key), linksTo(state.links, r))));
}

// Each reason with its number, as the report's text has them. A table's own refusal is shown as it is: it names a constraint.
const reasonList = (reasons, verdicts) =>
  reasons.length > 0 && el("ul", { class: "bare quiet" }, reasons.map((r) =>
    el("li", {}, verdicts && [el("span", { class: `chip ${r.verdict}` }, plain(r.verdict)), " "],
      `${number(r.number)} with the reason ${/^[a-z_]+$/.test(r.reason) ? plain(r.reason) : r.reason}`)));

export function samples(line) {
  const acts = (s) => state.known.rules?.drift.includes(s.verdict) && !s.excused && nameable(s.key) && state.may.trigger;
  const about = line.samples.filter(acts).map((s) => ({ collection: line.name, ...s }));
  const bar = el("p", { class: "buttons chosen" });
  const fill = () => bar.replaceChildren(...chosenButtons(about.filter((s) => state.chosen.has(lineOf(line.name, s.key)))));
  const box = (s) => {
    const id = lineOf(line.name, s.key);
    const made = el("input", { type: "checkbox", "aria-label": `Choose ${line.name} ${s.key}`, checked: state.chosen.has(id), onchange: () => { made.checked ? state.chosen.add(id) : state.chosen.delete(id); fill(); } });
    return made;
  };
  fill();
  return el("div", {}, reasonList(line.reasons ?? [], true), el("ul", { class: "bare" }, line.samples.map((s) =>
    el("li", { class: "finding" },
      el("div", {}, acts(s) && about.length > 1 && [box(s), " "], el("span", { class: `chip ${s.verdict}` }, plain(s.verdict)), " ", code(s.key),
        s.path && el("p", { class: "quiet" }, code(s.path)),
        el("p", { class: "quiet" }, [
          s.columns && `differs in ${s.columns.join(", ")}`, s.reason && plain(s.reason), s.cause && plain(s.cause), s.excused && "excused",
        ].filter(Boolean).join(" · ")),
        el("p", {}, keyButton(line.name, s.key), linksTo(state.links, { collection: line.name, ...s }))),
      acts(s) && el("p", { class: "buttons" }, onlyThisButton(line.name, s), excuseButton(line.name, s.key))))), bar);
}

function onlyThisButton(collection, sample) {
  const conf = repairTheseOf([{ collection, ...sample }], state.known);
  const needed = conf ? conf.keys.length - 1 : 0;
  return conf && formButton("Only this one…", `Repair one difference in ${collection}`,
    { preset: conf, warns: needed ? `It needs ${count(needed, "other row")} first, named below before it.` : null }, null, `${sample.verdict} ${collection} ${sample.key}`);
}

// The buttons for exactly the differences whose boxes are checked.
function chosenButtons(these, lookup = state.known) {
  if (!these.length) return [];
  const conf = repairTheseOf(these, lookup);
  const says = count(these.length, "difference");
  return [
    conf && formButton(`Repair ${number(these.length)} chosen…`, `Repair ${says}`, { preset: conf, known: lookup }),
    formButton(`Excuse ${number(these.length)} chosen…`, `Excuse ${says}`, { preset: excuseTheseOf(these), fixed: ALONE }),
  ].filter(Boolean);
}
