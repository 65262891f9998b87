// Each collection in a line, and a run's counts by collection and verdict.

import { cell, numeric, NUMBERS, sweepButton } from "./buttons.js";
import { ago, breakable, count, el, number } from "./dom.js";
import { columnsOf, plain } from "./facts.js";
import { samples } from "./differences.js";

const opened = new Set(); // collections whose samples are shown: kept over a refresh
let few = matchMedia("(max-width: 820px)").matches; // on a phone each collection takes a screen

export function collectionsCard(all, at) {
  const counted = all.some((l) => l.documents !== null || l.rows !== null);
  const body = el("tbody", {}, all.flatMap((l) => collectionRows(l, counted, at)));
  const troubled = all.filter((l) => differs(l) || l.excused || l.notExamined).length;
  const only = el("input", { type: "checkbox", onchange: () => { few = only.checked; body.classList.toggle("troubled", few); } });
  only.checked = few && troubled > 0 && all.length > 8;
  body.classList.toggle("troubled", only.checked);
  const columns = ["Collection", ...(counted ? ["Documents", "Rows"] : []), "Examined", "State", "Compared until", "Last sweep", ""];
  return el("section", { class: "card", id: "collections" },
    el("h2", {}, "Collections"),
    all.length > 8 && troubled > 0 && el("label", { class: "check" }, only, `Only the ${troubled} with open or excused differences`),
    el("table", {}, el("caption", { class: "unseen" }, "Each collection in the last report"),
      el("thead", {}, el("tr", {}, columns.map((c) => el("th", { scope: "col", class: NUMBERS.includes(c) && "figure" }, c || el("span", { class: "unseen" }, "Actions"))))), body));
}


// A count that isn't the last run's says how old it is: minutes beside a live app, or weeks.
const figure = (value, counted, at) =>
  value === null ? el("span", { class: "quiet" }, "–") : el("span", {}, number(value), counted && counted !== at && el("small", { class: "quiet asof" }, ago(counted)));

function counts(label, value, counted, at) {
  const made = numeric(label, figure(value, counted, at));
  made.classList.toggle("none", value === null); // on a phone it would be a line of its own
  return made;
}

const differs = (line) => Object.values(line.open).some(Boolean);

function collectionRows(line, counted, at) {
  const trouble = differs(line) || line.excused || line.notExamined;
  const state = line.notExamined
    ? [el("span", { class: "chip rejected" }, "not examined")]
    : [
        Object.keys(line.open).filter((v) => line.open[v]).map((v) => el("span", { class: `chip ${v}` }, `${number(line.open[v])} ${v}`)),
        columnsOf(line.columns) && el("span", { class: "quiet" }, columnsOf(line.columns)),
        line.inFlight > 0 && el("span", { class: "chip" }, `${number(line.inFlight)} in flight`),
        line.excused > 0 && el("span", { class: "chip" }, `${number(line.excused)} excused`),
        line.explained > 0 && el("span", { class: "chip", title: "orphans and duplicates: no drift" }, `${number(line.explained)} orphan or duplicate`),
        !differs(line) && !line.inFlight && (line.seen ? el("span", { class: "chip good" }, "agrees") : el("span", { class: "quiet" }, "not in the last run")),
      ];
  const more = el("tr", { class: "samples", hidden: !opened.has(line.name) }, el("td", { colspan: 8 }, samples(line)));
  const toggle = el("button", { type: "button", class: "plain", "aria-expanded": String(!more.hidden), onclick: () => {
    more.hidden = !more.hidden;
    toggle.setAttribute("aria-expanded", String(!more.hidden));
    more.hidden ? opened.delete(line.name) : opened.add(line.name);
  } }, `${count(line.samples.length, "sample")}`, el("span", { class: "unseen" }, ` of ${line.name}`));
  const row = el("tr", { class: trouble ? "" : "quietly" },
    el("th", { scope: "row" }, breakable(line.name)),
    counted && [["Documents", "Rows"].map((label) => counts(label, line[label.toLowerCase()], line.counted, at))], numeric("Examined", figure(line.examined)),
    cell("State", el("div", { class: "chips" }, state)),
    cell("Compared until", line.until ? ago(line.until) : ago(null)), cell("Last sweep", ago(line.swept)),
    cell("", el("div", { class: "buttons actions" }, line.samples.length > 0 && toggle, sweepButton(line.name))));
  return line.samples.length ? [row, more] : [row];
}

// --- one run's counts ---------------------------------------------------------------------------------------------------

const amount = (value) => (value ? number(value) : el("span", { class: "quiet" }, "–"));

export function countsCard(title, collections) {
  if (!collections.length) return null;
  const verdicts = Object.keys(collections[0].counts).filter((v) => collections.some((c) => c.counts[v]));
  const extra = ["inserted", "updated", "deleted", "billed_reads"].filter((k) => collections.some((c) => c[k]));
  const all = collections.map((c) => ({ name: c.collection, samples: Object.entries(c.samples).flatMap(([verdict, shown]) => shown.map((s) => ({ verdict, ...s }))) }));
  const proven = collections.some((c) => c.verification);
  return el("section", { class: "card" }, el("h2", {}, title),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, by collection` }, el("table", {}, el("thead", {}, el("tr", {}, ["Collection", "Examined", ...verdicts.map(plain), ...extra.map(plain), ...(proven ? ["Verification"] : [])].map((h, i) => el("th", { scope: "col", class: i > 0 && h !== "Verification" && "figure" }, h)))),
      el("tbody", {}, collections.map((c) => el("tr", {}, el("th", { scope: "row" }, c.collection),
        numeric("Examined", c.not_examined ? el("span", { class: "chip rejected" }, "not examined") : amount(c.examined)),
        verdicts.map((v) => numeric(plain(v), amount(c.counts[v]))), extra.map((k) => numeric(plain(k), amount(c[k]))),
        proven && cell("Verification", plain(c.verification ?? ""))))))),
    all.filter((l) => l.samples.length).map((l) => el("details", {}, el("summary", {}, `${l.name}: ${count(l.samples.length, "sample")}`), samples(l))));
}
