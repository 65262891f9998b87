// The page: an overview in the navigation, and the report of one run on that run's page.

import * as api from "./api.js";
import { ALONE, alertItem, button, cell, done, formButton, OFF, pressButton, repairTitle, state } from "./buttons.js";
import { choice, elsewhere } from "./bundles.js";
import { trend } from "./chart.js";
import { collectionsCard, countsCard } from "./collections.js";
import { findingsCard, listCard } from "./differences.js";
import { age, ago, clock, code, count, el, followTheme, link, named, nameOf, number, runLink, say, span, when } from "./dom.js";
import { alertsOf, dollars, findings, fromLink, history, intervened, isOld, lines, nameable, neverSwept, outcome, plain, spent, standing, steps, unexcuseOf } from "./facts.js";
import { keyCard } from "./key.js";
import { readyCard, signOffPage } from "./ready.js";
import { changeLine, changesOf, switchCard } from "./switch.js";
import { openForm } from "./trigger.js";

const EVERY = 30_000;
const WHILE_RUNNING = 5_000;
const asked = new URLSearchParams(location.search);
const page = document.getElementById("page");
const SIGNS = { good: "✓", bad: "✕", unknown: "?" };
let timer = 0;
let bundles = null; // the prefixes of those in this Airflow, once they are known

// --- the overview ----------------------------------------------------------------------------------------------------

function overview(loaded) {
  const { latest, runs } = loaded;
  state.busy = Boolean(loaded.running);
  state.runs = runs;
  state.links = latest?.report.links ?? null;
  const top = [heading(loaded), state.note && el("p", { class: "card note" }, state.note), progressCard(loaded)];
  if (!latest) return [...top, nothingYet(loaded)];
  const { report } = latest;
  if (isOld(report)) return [...top, oldCard(latest), waiting(loaded), bundleCard(loaded)];
  const problems = findings(report);
  state.known = { problems, lines: lines(report, loaded.backfill), rules: report.rules, interventions: report.interventions };
  return [
    ...top,
    hero(loaded, problems),
    waiting(loaded),
    el("div", { class: "body" },
      el("div", { class: "open" }, problems.length > 0 && findingsCard(problems, state.known.lines), listCard(report, latest.lister)),
      el("div", { class: "columns" }, readyCard(report, problems), historyCard(report, runs)),
      el("div", { class: "all" }, collectionsCard(state.known.lines, report.at))),
    el("div", { class: "columns" }, switchCard(report, loaded.enabled), keyCard(report.declared)),
    report.excuses.length > 0 && excusesCard(report),
    interventionsCard(report.interventions, loaded.enabled),
    bundleCard(loaded),
  ];
}

function heading({ dag }) {
  const look = formButton("Look now…", "Look now", { preset: { scope: "recent" }, fixed: OFF });
  return el("header", {},
    el("h1", {}, "Parity"),
    el("p", { class: "quiet" }, "Firestore (source) compared with Supabase (target)."),
    !state.may.trigger && el("p", { class: "quiet" }, "You may look at this page. To repair, excuse or sweep, ask for the right to trigger ", el("strong", {}, api.RECONCILE), "."),
    el("p", { class: "buttons" }, dag && look, dag && pauseButton(dag), button("Refresh", refresh)));
}

function pauseButton(dag) {
  if (!state.may.unpause) return null;
  const paused = dag.is_paused;
  return button(paused ? "Unpause" : "Pause", async () => {
    try {
      await api.pause(api.RECONCILE, !paused);
      state.note = [paused ? "Unpaused: scheduled runs begin." : "Paused: nothing is compared until it is unpaused. A run in progress goes on."];
    } catch (error) {
      state.note = [error.status === 403 ? `You may not ${paused ? "unpause" : "pause"} ${api.RECONCILE}.` : error.message];
    }
    refresh();
  });
}

// The steps of the run in progress, and the runs that wait behind it.
function progressCard({ running, queued, progress, dag }) {
  const next = dag && !dag.is_paused && dag.next_dagrun_run_after;
  if (!running) return next ? el("p", { class: "quiet" }, `The next scheduled run begins at ${clock(next)}.`) : null;
  const waits = running.state === "queued";
  const says = { done: "done", now: "in progress", failed: "failed", skipped: "left out", ahead: "ahead" };
  const items = steps(progress?.tasks ?? []).map((s) =>
    el("li", { class: `step ${s.state}`, "aria-current": s.state === "now" && "step" },
      el("span", { class: "sign", "aria-hidden": "true" }, { done: "✓", now: "●", failed: "✕", skipped: "–", ahead: "○" }[s.state]),
      s.id === "grace" && progress.until ? `second look at ${clock(progress.until)}` : s.says, el("span", { class: "unseen" }, `: ${says[s.state]}`)));
  return el("section", { class: "card", "aria-labelledby": "progress" },
    el("h2", { id: "progress", class: "running" }, waits ? "A run waits to begin" : "A run is in progress"),
    el("p", {}, named(running), running.start_date && `, for ${span(age(running.start_date))}`, ". ",
      waits && dag?.is_paused && ["It waits until the DAG is unpaused: ", link(`dags/${api.RECONCILE}`, "open it"), ". "],
      state.may.trigger && "The buttons wait until it has ended."),
    el("ol", { class: "bare steps" }, items),
    queued?.length > 0 && el("p", { class: "quiet" }, `${count(queued.length, "run")} wait${queued.length === 1 ? "s" : ""} behind it: `, queued.flatMap((r, i) => [i > 0 && ", ", named(r)])));
}

function oldCard({ report, run }) {
  state.known = { problems: [], lines: [], rules: null };
  return el("section", { class: "card hero unknown", "aria-labelledby": "standing" },
    el("h2", { id: "standing" }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS.unknown), report.verdict),
    el("p", {}, "Found by ", named(run), ", ", ago(report.at), ", with an earlier version of the bundle: the next run's report has details and buttons."),
    el("ul", { class: "bare" }, alertsOf(report).map(alertItem)));
}

function hero({ latest, dag, runs, running, stopped }, problems) {
  const { report, run } = latest;
  const { tone, says } = standing(report, run, dag);
  const newest = runs.find(api.ended);
  const until = Object.values(report.ages).map((a) => a.examined_until).sort()[0];
  const swept = Object.values(report.ages).map((a) => a.swept_at ?? "").sort()[0];
  const never = neverSwept(report);
  const silent = newest && newest.dag_run_id !== (latest.since ?? run).dag_run_id;
  return el("section", { class: `card hero ${tone}${running ? " past" : ""}`, "aria-labelledby": "standing" },
    el("h2", { id: "standing" }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[tone]), says),
    running && el("p", {}, "As it was before the run in progress."),
    el("p", {}, "Found by ", named(run), ", ", ago(report.at), ". ",
      until && ["Every recent write is compared up to ", el("strong", {}, when(until)), "; "],
      never.length ? ["never compared completely: ", el("strong", {}, never.join(", ")), "."] : swept && ["every document and row was last compared ", ago(swept), "."],
      tone === "good" && report.clean_days > 0 && ` No drift for ${count(report.clean_days, "day")}.`),
    reasons(report, problems),
    silent && el("p", { class: "problem" }, stopped ? `A later run failed: ${stopped} ` : "A later run ended without a report: ", named(newest), ", ",
      link(`dags/${api.RECONCILE}/runs/${encodeURIComponent(newest.dag_run_id)}/tasks/${stopped?.startsWith("Nothing was examined") ? "preflight" : "report"}`, "its log"), ". This page shows an older one."),
    dag.is_paused && el("p", { class: "problem" }, "The DAG is paused: nothing is compared until it is unpaused. ", link(`dags/${api.RECONCILE}`, "Open it")),
    !report.dual_write_enabled && el("p", {}, `Dual-write is switched off (Variable ${api.SWITCH}): differences are expected.`),
    problems.length > 1 && el("p", { class: "buttons" }, pressButton(report.press, repairTitle(problems.filter((f) => f.alert?.press)), "primary", "all that is open")));
}

// Why the run failed, except for the drift that is listed below with its buttons.
function reasons(report, problems) {
  const listed = new Set(problems.map((f) => f.alert));
  return report.alerts.filter((a) => !listed.has(a)).map((a) =>
    el("p", { class: "problem" }, a.text, a.press && [" ", pressButton(a.press, a.press.says, null, a.collection)]));
}

function waiting({ approvals }) {
  if (!approvals.length) return null;
  const items = approvals.map((t) => el("li", {}, "A backfill waits for your approval: ",
    link(`dags/${t.dag_id}/runs/${encodeURIComponent(t.dag_run_id)}/tasks/${t.task_id}/required_actions`, nameOf(t))));
  return el("section", { class: "card note" }, el("ul", { class: "bare" }, items));
}

function historyCard(report, runs) {
  const points = history(report, runs);
  const title = points.length > 1 ? `The last ${count(points.length, "run")}, over ${span((Date.parse(points.at(-1).at) - Date.parse(points[0].at)) / 1000)}` : "The last runs";
  return el("section", { class: "card" },
    el("h2", {}, title),
    trend(points, [
      { title: "Differences found, the excused ones pale", series: [...report.rules.drift, "excused"] },
      { title: "Rows written", series: ["written"] },
      { title: "Billed reads", series: ["billed"] },
      { title: "Duration", series: ["seconds"], format: span },
    ], api.RECONCILE),
    costs(report));
}

function costs(report) {
  const cost = spent(report);
  if (!cost) return null;
  return el("p", { class: "quiet costs" }, `Billed reads: ${number(Math.round(cost.reads))} a day, `, el("strong", {}, dollars(cost.day)), " a day, ", el("strong", {}, dollars(cost.month)),
    ` in 30 days, by the last ${count(cost.of, "whole day")} of all DAGs, without preflight, and the list price of $${report.price} per 100,000.`);
}

function excusesCard(report) {
  const total = report.open.filter((l) => l.excused).reduce((sum, l) => sum + l.number, 0);
  const items = report.excuses.map((e) =>
    el("li", { class: "finding" },
      el("div", {}, el("strong", {}, e.collection), " ", el("span", { class: "chip" }, plain(e.verdict)), " ", code(e.key),
        el("p", {}, el("q", {}, e.reason ?? "")), el("p", { class: "quiet" }, "by ", e.by, ", ", ago(e.since))),
      nameable(e.key) && el("p", { class: "buttons" }, formButton("Take back…", "Take an excuse back", { preset: unexcuseOf(e.collection, e.key), fixed: ALONE }, null, `${e.collection} ${e.key}`))));
  return el("section", { class: "card" }, el("h2", {}, "Excuses"),
    el("details", {}, el("summary", {}, total > items.length ? `${number(total)} excused, the latest ${items.length} shown` : `${number(total)} excused`),
      el("ul", { class: "bare" }, items)));
}

// Interventions, the latest first. A run's writes can be undone as long as the journal has them.
function interventionsCard(interventions, enabled) {
  const changes = changesOf(enabled.log);
  if (!interventions.length && !changes.length) return null;
  const undo = (i) => i.journaled > i.undone && formButton("Undo…", `Undo what ${i.by} ${i.kind === "backfill" ? "backfilled" : i.kind === "undo" ? "undid" : "repaired"}, ${when(i.at)}`, { preset: { undo: i.run_id } }, null, i.run_id);
  const items = [...interventions, ...changes].sort((a, b) => Date.parse(b.at) - Date.parse(a.at)).map((i) => i.kind === "switch" ? el("li", { class: "finding" }, el("div", {}, changeLine(i))) :
    el("li", { class: "finding" },
      el("div", {}, el("strong", {}, i.by), " ", intervened(i), i.undone > 0 && [" ", el("span", { class: "chip" }, i.undone >= i.journaled ? "undone" : `${number(i.undone)} undone`)],
        i.reason && el("p", {}, el("q", {}, i.reason)),
        el("p", { class: "quiet" }, runLink(i.dag_id, i.run_id, `${i.dag_id}, ${when(i.at)}`))),
      undo(i) && el("p", { class: "buttons" }, undo(i))));
  return el("section", { class: "card", id: "interventions" }, el("h2", {}, "Interventions"),
    el("details", {}, el("summary", {}, items.length > 1 ? `The last ${count(items.length, "intervention")}` : "The last intervention"), el("ul", { class: "bare" }, items)));
}

function bundleCard({ backfill, migrations }) {
  const about = (dagId, latest, summaryOf) =>
    el("li", {}, link(`dags/${dagId}`, dagId), ": ", latest ? [summaryOf(latest.report), " (", runLink(dagId, latest.run.dag_run_id, el("span", { class: latest.run.state === "failed" && "failed" }, latest.run.state)), ", ", ago(latest.run.end_date), ")"] : "no report yet");
  return el("section", { class: "card" }, el("h2", {}, "The other DAGs"), el("ul", {},
    about(api.BACKFILL, backfill, (r) => r.verdict ?? plain(r.mode)),
    about(api.MIGRATIONS, migrations, (r) => r.verdict ?? plain(r.mode))));
}

function nothingYet({ dag, running, migrations, backfill, stopped }) {
  const step = (done, ...text) => el("li", { class: done ? "good" : "" }, el("span", { class: "sign", "aria-hidden": "true" }, done ? "✓" : "○"), el("div", {}, ...text));
  return el("section", { class: "card" },
    el("h2", {}, running ? "The first comparison is in progress" : "Nothing has been compared yet"),
    stopped && el("p", { class: "problem" }, stopped),
    el("ul", { class: "bare checks" },
      step(migrations?.report.mode === "apply", "Run ", link(`dags/${api.MIGRATIONS}`, api.MIGRATIONS), " with mode apply."),
      step(backfill && backfill.report.mode !== "dry_run", "Run ", link(`dags/${api.BACKFILL}`, api.BACKFILL), ": a dry run, then apply."),
      step(false, "Look now, and unpause ", link(`dags/${dag.dag_id}`, dag.dag_id), " when dual-write is on.")));
}

// --- one run ---------------------------------------------------------------------------------------------------------

async function oneRun(dagId, runId) {
  if (!api.OURS.includes(dagId)) return [el("h1", {}, "Parity"), el("p", { class: "card" }, "This run belongs to a DAG that this page is not about. ", link(api.HOME, "Open the Parity page"))];
  const [run, report] = await Promise.all([api.run(dagId, runId), api.report(dagId, runId)]);
  const top = el("header", { class: "run" }, el("h1", {}, report?.verdict ?? plain(dagId)), el("p", {}, link(api.HOME, "The Parity page")));
  if (!report) {
    if (!api.ended(run)) return [top, el("p", { class: "card" }, "The run is in progress. Its last task makes the report.")];
    const lost = (await api.tasks(dagId, runId).catch(() => [])).filter((t) => t.state === "failed");
    const logs = lost.map((t) => el("li", {}, link(`dags/${dagId}/runs/${encodeURIComponent(runId)}/tasks/${t.task_id}`, t.task_id)));
    return [top, el("section", { class: "card" }, el("p", {}, "The run ended without a report. ", lost.length ? "The tasks that failed:" : "None of its tasks failed: it was cut off, by its timeout or by hand."), el("ul", {}, logs))];
  }
  const alerts = alertsOf(report);
  const why = alerts.length > 0 && el("section", { class: "card" }, el("h2", {}, "Why it failed"), el("ul", { class: "bare" }, alerts.map(alertItem)));
  if (report.stopped) return [top, why];
  if (dagId === api.MIGRATIONS) return [top, why, stepsCard(report)];
  state.known = { problems: [], lines: [], rules: isOld(report) ? null : report.rules, asOf: "As this run found it" };
  if (dagId === api.BACKFILL) return [top, why, countsCard(report.approval === "rejected" ? "Found, and rejected" : "Found", report.collections.filter((c) => c.phase === "gap")), countsCard("Verified", report.collections.filter((c) => c.phase === "verify"))];
  if (isOld(report)) return [top, why, countsCard("Examined", report.collections)];
  state.links = report.links ?? null;
  const problems = findings(report);
  state.known = { ...state.known, problems, lines: lines(report, null) };
  if (state.asked) await tellOutcome([await api.run(api.RECONCILE, state.asked.dag_run_id)]);
  state.busy = Boolean(state.asked);
  return [top, state.note && el("p", { class: "card note" }, state.note), why, problems.length > 0 && findingsCard(problems, state.known.lines), countsCard("Examined", report.collections)];
}

const stepsCard = (report) =>
  el("section", { class: "card" }, el("h2", {}, "Migrations"),
    el("table", {}, el("thead", {}, el("tr", {}, ["Version", "Name", "State", "Reason"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, report.steps.map((s) => el("tr", {}, el("th", { scope: "row" }, s.version), cell("Name", s.name), cell("State", plain(s.state)), cell("Reason", s.reason ?? ""))))),
    (report.differences ?? []).length > 0 && el("ul", {}, report.differences.map((d) => el("li", {}, d))));

// --- loading ---------------------------------------------------------------------------------------------------------

const failed = (error) => [el("h1", {}, "Parity"), el("section", { class: "card hero unknown", role: "alert" }, el("p", {}, reason(error)))];

function reason(error) {
  return {
    0: ["Airflow doesn't answer. This page will try again."],
    401: ["Your session has ended. ", link("auth/login", "Log in again")],
    403: ["You may not see ", el("strong", {}, api.RECONCILE), ". Ask for the right to read that DAG."],
    404: ["Airflow has no DAG ", el("strong", {}, api.RECONCILE), " (yet): see ", link("dags", "its import errors"), "."],
  }[error.status] ?? ["The page could not be loaded: ", error.message, "."];
}

let seen = null; // when the page was last loaded whole

async function refresh() {
  clearTimeout(timer);
  let wait = EVERY;
  page.setAttribute("aria-busy", "true");
  try {
    let content;
    [state.may, bundles] = await Promise.all([api.may(), bundles ?? api.bundles().catch(() => [])]);
    const other = elsewhere(bundles);
    if (other) return location.replace(other);
    if (asked.get("signoff")) content = await signOffPage();
    else if (asked.get("run_id")) content = await oneRun(asked.get("dag_id"), asked.get("run_id"));
    else {
      const loaded = await api.overview(state.may);
      await tellOutcome(loaded.runs);
      content = overview(loaded);
      if (loaded.running) wait = WHILE_RUNNING;
      if (loaded.latest) announce(isOld(loaded.latest.report) ? loaded.latest.report.verdict : standing(loaded.latest.report, loaded.latest.run, loaded.dag).says);
    }
    show(content);
    seen = new Date().toISOString();
  } catch (error) {
    // The last state, with its age, is worth more than an empty page.
    if (seen && error.status !== 403) outdated(error);
    else show(failed(error));
  }
  page.setAttribute("aria-busy", "false");
  if (!asked.get("signoff")) timer = setTimeout(() => (document.hidden ? refreshWhenSeen() : refresh()), wait);
}

function outdated(error) {
  page.querySelector(".outdated")?.remove();
  page.prepend(el("section", { class: "card hero unknown outdated", role: "alert" }, el("p", {}, reason(error), ` This is the state of ${when(seen)}.`)));
}

// Replaces the note "Asked for" by the outcome of the run that this page triggered, once it has ended.
async function tellOutcome(runs) {
  const run = state.asked && runs.find((r) => r.dag_run_id === state.asked.dag_run_id);
  if (!run || !api.ended(run)) return;
  state.note = [outcome(await api.report(api.RECONCILE, run.dag_run_id)), " (", named(run), ")"];
  state.asked = null;
}

let announced = "";
function announce(text) {
  if (text !== announced) say((announced = text));
}

// Replaces the page, and gives the focus back to the control that had it.
function show(content) {
  const controls = () => [...page.querySelectorAll("a, button, input, select, summary")];
  const at = controls().indexOf(document.activeElement);
  const name = at >= 0 ? document.activeElement.textContent : "";
  const unfolded = [...page.querySelectorAll("details[open] > summary")].map((s) => s.textContent);
  const others = bundles && !asked.get("run_id") && choice(bundles);
  page.replaceChildren(...[others, ...content.flat()].filter(Boolean));
  for (const summary of page.querySelectorAll("summary")) summary.parentElement.open = unfolded.includes(summary.textContent);
  const again = controls();
  if (at >= 0) (again[at]?.textContent === name ? again[at] : again.find((c) => c.textContent === name))?.focus();
}

function refreshWhenSeen() {
  document.addEventListener("visibilitychange", refresh, { once: true });
}

// A link may open the form with values: ?conf={"repair":"missing","collections":["posts"]}, on this page's own address or on
// the one of Airflow's window around it. It sends nothing itself.
function confOfLink() {
  try {
    return asked.get("conf") ?? (window.parent === window ? null : new URLSearchParams(window.parent.location.search).get("conf"));
  } catch {
    return null; // another origin frames us
  }
}

function openFromLink() {
  const text = confOfLink();
  if (!text || !state.may.trigger || asked.get("run_id")) return;
  let conf;
  try {
    conf = JSON.parse(text);
  } catch {
    conf = null;
  }
  if (!conf || typeof conf !== "object" || Array.isArray(conf)) {
    state.note = ["The link's values can't be read: they are not a JSON object."];
    return;
  }
  const { preset, left } = fromLink(conf);
  const brakes = left.length ? ` It also asked for ${left.join(" and ")}: no link sets a limit. If you mean it, set it below.` : "";
  openForm("Values from a link", { preset, warns: `Check these values: they come from the link that you followed.${brakes}`, known: state.known, may: state.may, onDone: done });
}

state.refresh = refresh;
followTheme();
refresh().then(() => {
  openFromLink();
  if (state.note) refresh();
});

