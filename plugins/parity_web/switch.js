// The switch dual_write_enabled, an Airflow Variable: its state, its meaning, and its changes by Airflow's audit log.

import * as api from "./api.js";
import { button, state } from "./buttons.js";
import { ago, el, say, when } from "./dom.js";

const NAME = api.SWITCH;
const MEANS = {
  true: "Dual-write is expected to be on: rows that are missing, stale or extra fail a run, and may be repaired.",
  false: "Dual-write is off on purpose: rows that are missing, stale or extra are expected. They are counted and kept open, but fail no run and aren't repaired.",
};
const WILL = {
  true: "From the next run on, rows that are missing, stale or extra fail runs again, with everything missed meanwhile; a repair restores it. Turn the app's own flag on first: this doesn't touch it.",
  false: "From the next run on, rows that are missing, stale or extra are expected: they are counted and kept open, fail no run, and aren't repaired; a repair that hasn't begun to write doesn't begin. Real losses are among them, unseen, until it is on again. Turn the app's own flag off too: this doesn't touch it.",
};
const SAYS = { true: "Switched on from the Parity page.", false: "Switched off from the Parity page." };
const WORD = { true: "on", false: "off" };

// Changes as interventions, the latest first: Airflow's audit log hides a Variable's value, but our description names it.
export const changesOf = (log) =>
  (log ?? []).map(({ owner, when: at, extra, event }) => {
    const to = Object.keys(SAYS).find((value) => extra?.includes(SAYS[value]));
    return { kind: "switch", by: owner ?? "unknown", at, says: to ? `switched dual-write ${WORD[to]}` : event.startsWith("delete") ? `deleted Variable ${NAME}, which switches dual-write on` : `set Variable ${NAME} elsewhere than on this page` };
  });

// `variable`: {value, log}: the Variable's text, null if there is none, undefined if the viewer may not see it.
export function switchCard(report, variable) {
  const seen = String(report.dual_write_enabled);
  const value = variable.value === undefined ? seen : (variable.value ?? "true").trim().toLowerCase();
  const changed = variable.log?.[0]?.when;
  const differs = value !== seen;
  const late = differs && changed && report.at > changed; // both in UTC
  const other = value === "true" ? "false" : "true";
  return el("section", { class: "card", id: "switch" },
    el("h2", {}, "Dual-write ", el("span", { class: `chip ${value === "true" ? "good" : "stale"}` }, WORD[value] ?? "unreadable")),
    el("p", {}, MEANS[value] ?? `Variable ${NAME} is neither true nor false: the next run fails until that is corrected.`),
    el("p", { class: "quiet" }, `Variable ${NAME}. `,
      variable.value === undefined ? ["As the last run read it, ", ago(report.at), "."] : differs && !late ? ["The last run, ", ago(report.at), `, read ${WORD[seen]}: the next one reads this.`] : null,
      changed && [" Changed ", ago(changed), ` by ${variable.log[0].owner}.`]),
    late && el("p", { class: "problem" }, `The last run read ${WORD[seen]}, although the Variable was changed before it: the workers take it from their environment or a secrets backend, which come first. Change it there.`),
    state.may.switch ? el("p", { class: "buttons" }, button(`Switch ${WORD[other]}…`, () => ask(other, variable)))
      : state.may.trigger && el("p", { class: "quiet" }, "To change it, ask for the right to edit Variables."));
}

function ask(to, variable) {
  const problem = el("p", { class: "problem", role: "alert" });
  const heading = el("h2", { id: "switch-title", tabindex: "-1" }, `Switch dual-write ${WORD[to]}`);
  const close = () => dialog.close();
  const submit = button(`Switch ${WORD[to]}`, async () => {
    submit.disabled = true;
    try {
      await api.setVariable(NAME, to, SAYS[to]);
      close();
      state.note = [`Dual-write is switched ${WORD[to]}. The next run goes by it; Airflow's audit log keeps who did it.`];
      say(`Dual-write is switched ${WORD[to]}.`);
      state.refresh();
    } catch (error) {
      problem.textContent = error.status === 403 ? "You may not edit Variables." : error.message;
      submit.disabled = false;
    }
  }, to === "false" ? "danger" : "primary");
  const dialog = el("dialog", { class: "form", "aria-labelledby": "switch-title", onclose: () => dialog.remove() },
    heading, el("p", {}, WILL[to]), el("p", { class: "quiet" }, `Sets Variable ${NAME} to ${to}. It can be set back at any time.`, variable.value === null && " There is no such Variable yet: it is made."),
    problem, el("p", { class: "buttons" }, submit, button("Cancel", close)));
  document.body.append(dialog);
  dialog.showModal();
  heading.focus(); // never the button: one key would do it
}

export const changeLine = (c) => [el("strong", {}, c.by), ` ${c.says}`, el("p", { class: "quiet" }, when(c.at))];
