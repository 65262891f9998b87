// Shared by the page's parts: its state, and the buttons that open a form.

import * as api from "./api.js";
import { count, el, link } from "./dom.js";
import { excuseAllOf, excuseOf, sweepOf } from "./facts.js";
import { openForm, started } from "./trigger.js";

export const state = {
  may: { trigger: true, unpause: true, switch: false },
  known: { problems: [], lines: [], rules: null }, // the last report's open differences, and its rules
  busy: false, // a run is looking at the differences that the buttons would act on
  note: null,
  asked: null, // the run that this page triggered, until it has ended
  runs: [], // of reconcile_dual_writes, the newest first
  links: null, // the report's
  chosen: new Set(), // differences whose box is checked, as collection:key: kept over a refresh
  refresh: () => {},
};

export const button = (content, onclick, kind) => el("button", { type: "button", class: kind, onclick }, content);

export const done = (run) => {
  state.asked = run;
  state.note = started(run);
  state.refresh();
};

// A button that opens a form; null for a viewer, whom Airflow would refuse at the end. `of`: the subject of a button that
// stands in every line, for a screen reader.
export function formButton(text, title, form, kind, of) {
  if (!state.may.trigger) return null;
  const spoken = of && el("span", { class: "unseen" }, ` ${of}`);
  const made = button([text, spoken], () => openForm(title, { known: state.known, may: state.may, onDone: done, ...form }), kind);
  made.disabled = state.busy;
  return made;
}

export const OFF = { repair: "off" };
export const ALONE = { repair: "off", scope: "none" }; // an excuse takes effect at once: nothing has to be compared for it

// The button that the report names. For another DAG, a link to Airflow's own form; for a viewer, the instruction in words.
export function pressButton(press, title, kind, of) {
  if (!press) return null;
  if (press.dag !== api.RECONCILE) return link(`dags/${press.dag}`, press.button);
  return formButton(press.button, title, { preset: press.conf }, kind, of) ?? el("span", { class: "quiet" }, press.says);
}

export const repairTitle = (groups) => `Repair ${count(groups.reduce((sum, g) => sum + g.number, 0), "difference")}`;

export const alertItem = (a) => el("li", { class: "finding" }, el("div", {}, el("p", {}, a.text)),
  a.press && el("p", { class: "buttons" }, pressButton(a.press, a.press.says, null, a.collection)));

export const excuseButton = (collection, key) =>
  formButton("Excuse…", "Excuse a difference", { preset: excuseOf(collection, key), fixed: ALONE }, null, `${collection} ${key}`);

// A line's differences: by key, or by their verdict if the report doesn't show them all.
export function excuseLineButton(group, samples) {
  const exact = excuseAllOf(group, samples);
  return formButton("Excuse…", `Excuse ${count(group.number, "difference")} in ${group.collection}`,
    { preset: exact ?? excuseOf(group.collection, group.verdict), fixed: ALONE }, null, `${group.verdict} ${group.collection}`);
}

export const sweepButton = (collection) => formButton("Sweep…", `Sweep ${collection}`, { preset: sweepOf(collection), fixed: OFF }, null, collection);

// --- cells, and a file --------------------------------------------------------------------------------------------------

export const NUMBERS = ["Documents", "Rows", "Examined"];
export const cell = (label, ...content) => el("td", { "data-label": label }, ...content);
export const numeric = (label, ...content) => el("td", { "data-label": label, class: "figure" }, ...content);

export function download(name, text, type = "text/csv") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = el("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
