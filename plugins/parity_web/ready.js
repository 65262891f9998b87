// Whether reads may be switched: the card, and the sign-off on a page of its own.

import * as api from "./api.js";
import { button, download, formButton, OFF, state } from "./buttons.js";
import { PREFIX } from "./bundles.js";
import { age, code, count, el, link, number, when } from "./dom.js";
import { boxes, intervened, plain, signOff } from "./facts.js";
import { changesOf } from "./switch.js";

const REMEDIES = {
  swept: () => formButton("Sweep all…", "Sweep every collection", { preset: { scope: "sweep" }, fixed: OFF }),
  drift: (some) => (some ? el("a", { href: "#open" }, "See what is open") : el("a", { href: "#collections" }, "See the collections")),
  clean: () => link(`dags/${api.RECONCILE}/runs`, "See the runs"),
  rejected: (some) => (some ? el("a", { href: "#open" }, "See what is open") : el("a", { href: "#collections" }, "See the collections")),
  migrations: () => link(`dags/${api.MIGRATIONS}`, `Open ${api.MIGRATIONS}`),
  alive: () => link("variables", "See the Variables"),
  derived: () => el("a", { href: "#collections" }, "See the collections"),
};

export function readyCard(report, problems) {
  const ready = report.ready;
  if (!ready) return null;
  const old = age(report.at) > 86400;
  const answer = ready.answer && !old;
  const lacking = ready.checks.filter((c) => !c.ok).length;
  const summary = old ? "No: the last report is older than a day." : answer ? "Yes." : `No: ${count(lacking, "condition is", "conditions are")} not met.`;
  return el("section", { class: "card", id: "ready" },
    el("h2", {}, "Ready to switch reads?"),
    el("p", { class: `answer ${answer ? "good" : "bad"}` }, summary),
    el("ul", { class: "bare checks" }, ready.checks.map((c) =>
      el("li", { class: c.ok ? "good" : "bad" },
        el("span", { class: "sign", "aria-hidden": "true" }, c.ok ? "✓" : "✕"),
        el("div", {}, el("strong", {}, c.title), el("span", { class: "unseen" }, c.ok ? ": met. " : ": is not met. "),
          el("p", { class: "quiet" }, c.says, " ", !c.ok && REMEDIES[c.name]?.(problems.length > 0)))))),
    daysList(report),
    el("p", { class: "buttons" }, signOffLink()));
}

// On a page of its own, which can be printed: Airflow's frame around this one can't.
function signOffLink() {
  const made = link(`parity/?signoff=1${PREFIX && `&prefix=${PREFIX}`}`, "The sign-off, to print or download");
  made.target = "_blank";
  return made;
}

const whole = (text) => el("span", { class: "whole" }, text); // a date in two lines is hard to read down a column

const STATES = { clean: ["✓", "clean"], drift: ["✕", "drift, or not all was examined"], none: ["–", "no run"] };

// One box a day, the oldest first.
function daysList(report) {
  const days = boxes(report);
  if (!days.length) return null;
  return el("ol", { class: "bare days", "aria-label": `The last ${days.length} days` }, days.map((d) =>
    el("li", { class: `day ${d.state}`, title: `${d.day}: ${STATES[d.state][1]}, ${count(d.runs, "run")}` },
      el("span", { "aria-hidden": "true" }, STATES[d.state][0]), el("small", {}, d.day.slice(5)), el("span", { class: "unseen" }, `: ${STATES[d.state][1]}, ${count(d.runs, "run")}`))));
}

// --- the sign-off ------------------------------------------------------------------------------------------------------

export async function signOffPage() {
  const loaded = await api.overview(state.may);
  if (!loaded.latest?.report.ready) return [el("h1", {}, "Ready to switch reads?"), el("p", { class: "card" }, "No run has answered it yet.")];
  const { run, lister } = loaded.latest;
  const report = { ...loaded.latest.report, switched: changesOf(loaded.enabled.log) };
  const listed = report.listed?.pages ? await api.openList(api.RECONCILE, lister.dag_run_id, report.listed.pages).catch(() => []) : [];
  const told = signOff(report, run, listed.filter((r) => r.excused_by), state.may.name);
  const row = (...cells) => el("tr", {}, cells.map((c, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, c)));
  const table = (caption, heads, rows) => el("section", { class: "card" }, el("h2", {}, caption),
    el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, rows)));
  const lacking = told.excused - told.excuses.length;
  return [
    el("header", {}, el("h1", {}, told.question),
      el("p", { class: "buttons" }, button("Print", () => window.print(), "primary"), button("Download JSON", () => download(`sign-off-${told.asked_at.slice(0, 10)}.json`, JSON.stringify(told, null, 2), "application/json")))),
    el("section", { class: "card" },
      el("p", { class: `answer ${told.answer ? "good" : "bad"}` }, told.answer ? "Yes." : told.report.older_than_a_day ? "No: the last report is older than a day." : `No: ${count(told.checks.filter((c) => !c.ok).length, "condition is", "conditions are")} not met.`),
      el("p", {}, `Asked${told.asked_by ? ` by ${told.asked_by}` : ""} at ${when(told.asked_at)}. Answered by the run `, code(told.report.run_id), ` of ${when(told.report.at)}.`)),
    table("Evidence", ["Condition", "Met", "Evidence"], told.checks.map((c) => row(c.title, whole(c.ok ? "✓ yes" : "✕ no"), c.says))),
    table(`The last ${told.days.length} days (UTC)`, ["Day", "State", "Runs", "Runs with drift"], told.days.map((d) => row(whole(d.day), `${STATES[d.state][0]} ${STATES[d.state][1]}`, number(d.runs), d.not_clean.flatMap((id, i) => [i > 0 && ", ", code(id)])))),
    table("Collections", ["Collection", "Compared until", "Every document and row"], told.collections.map((c) => row(c.name, when(c.examined_until), c.swept_at ? when(c.swept_at) : "never"))),
    told.excused > 0 && table(`${count(told.excused, "difference")} excused${lacking > 0 ? `, ${number(told.excuses.length)} listed` : ""}`, ["Difference", "Verdict", "By", "Reason", "At"],
      told.excuses.map((e) => row([`${e.collection} `, code(e.key)], plain(e.verdict), e.by, e.reason ?? "", whole(e.at ? when(e.at) : "")))),
    told.interventions.length > 0 && table("The last interventions", ["Person", "What", "Reason", "At"], told.interventions.map((i) => row(i.by, i.says ?? intervened(i), i.reason ?? "", whole(when(i.at))))),
  ];
}
