// The page: an overview in the navigation, and the report of one run on that run's page.

import * as api from "./api.js";
import { chart } from "./chart.js";
import { age, ago, breakable, code, count, el, followTheme, link, number, runLink, say, span, utc } from "./dom.js";
import { DRIFT, excuseOf, findings, history, lines, nameable, neverSwept, plain, repairOf, standing, sweepOf, unexcuseOf } from "./facts.js";
import { openForm, started } from "./trigger.js";

const EVERY = 30_000;
const WHILE_RUNNING = 5_000;
const asked = new URLSearchParams(location.search);
const page = document.getElementById("page");
const SIGNS = { good: "✓", bad: "✕", unknown: "?" };
const opened = new Set(); // collections whose samples are shown: kept over a refresh
let timer = 0;
let note = null;

// --- buttons ---------------------------------------------------------------------------------------------------------

const button = (content, onclick, kind) => el("button", { type: "button", class: kind, onclick }, content);

// `of` tells a screen reader what a button that stands in every line is about.
function formButton(text, title, explanation, preset, kind, of) {
  const done = (run) => {
    note = started(run);
    refresh();
  };
  const spoken = of && el("span", { class: "unseen" }, ` ${of}`);
  return button([text, spoken], () => openForm(api.RECONCILE, title, explanation, preset, done), kind);
}

const EXPLAINED = {
  off: "Compares what was written since the last run. Writes nothing.",
  missing: "Inserts the rows that are missing. Nothing else is written.",
  missing_and_stale: "Inserts missing rows and updates stale ones. Nothing is deleted.",
  all: "Inserts, updates, and deletes rows whose documents are gone, in all collections: rows that depend on a deleted row are deleted too. The journal keeps every previous row.",
};

const repairButton = (found, kind) => {
  const conf = repairOf(found);
  const what = conf?.collections?.length === 1 ? ` ${conf.collections[0]}` : "";
  return conf && formButton(found.length > 1 ? "Repair all…" : "Repair…", `Repair${what}`, EXPLAINED[conf.repair], conf, kind,
    found.length > 1 ? null : `${found[0].verdict} ${found[0].collection}`);
};

const excuseButton = (collection, key) =>
  formButton("Excuse…", "Excuse a difference",
    key ? "It stays in the report as excused, and no longer fails a run." : `All that is open in ${collection} now stays in the report as excused, and no longer fails a run.`,
    excuseOf(collection, key), null, key ? `${collection} ${key}` : collection);

const sweepButton = (collection) =>
  formButton("Sweep…", `Sweep ${collection}`, "Compares every document with every row. One billed read for each document.", sweepOf(collection), null, collection);

// --- the overview ----------------------------------------------------------------------------------------------------

function overview(found) {
  const { latest, runs } = found;
  if (!latest) return [heading(found), nothingYet(found)];
  const { report, run } = latest;
  const problems = findings(report);
  return [
    heading(found),
    note && el("p", { class: "card note" }, note),
    hero(found, problems),
    waiting(found),
    problems.length > 0 && findingsCard(problems, lines(report, found.backfill)),
    el("div", { class: "columns" }, readyCard(report, found), historyCard(report, runs)),
    collectionsCard(lines(report, found.backfill)),
    (report.excuses ?? []).length > 0 && excusesCard(report),
    bundleCard(found),
  ];
}

function heading(found) {
  const look = formButton("Look now…", "Look now", EXPLAINED.off, { scope: "recent", repair: "off" });
  return el("header", {},
    el("h1", {}, "Parity"),
    el("p", { class: "quiet" }, "Firestore (source) compared with Supabase (target)."),
    el("p", { class: "buttons" }, found.dag && look, button("Refresh", refresh)));
}

function hero({ latest, dag, runs, running }, problems) {
  const { report, run } = latest;
  const { tone, says } = standing(report, run, dag);
  const newest = runs.find((r) => r.state === "success" || r.state === "failed");
  const until = Object.values(report.ages ?? {}).map((a) => a.examined_until).sort()[0];
  const swept = Object.values(report.ages ?? {}).map((a) => a.swept_at ?? "").sort()[0];
  const never = neverSwept(report);
  const silent = newest && newest.dag_run_id !== run.dag_run_id;
  return el("section", { class: `card hero ${tone}`, "aria-labelledby": "standing" },
    el("h2", { id: "standing" }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[tone]), says),
    el("p", {}, "Found by run ", runLink(api.RECONCILE, run.dag_run_id), ", ", ago(report.at), ". ",
      until && ["Every recent write is compared up to ", el("strong", {}, utc(until)), "; "],
      never.length ? ["never compared completely: ", el("strong", {}, never.join(", ")), "."] : swept && ["every document and row was last compared ", ago(swept), "."],
      tone === "good" && report.clean_days > 0 && ` No drift for ${count(report.clean_days, "day")}.`),
    reasons(report, problems),
    silent && el("p", { class: "problem" }, "A later run ended without a report: ", runLink(api.RECONCILE, newest.dag_run_id), ". This page shows an older one."),
    dag.is_paused && el("p", { class: "problem" }, "The DAG is paused: nothing is compared until it is unpaused. ", link(`dags/${api.RECONCILE}`, "Open it")),
    !report.dual_write_enabled && el("p", {}, "Dual-write is switched off (Variable dual_write_enabled): what is missing is expected."),
    running && el("p", { class: "running" }, "A run is in progress: ", runLink(api.RECONCILE, running.dag_run_id), `, ${running.state}`,
      running.start_date && `, for ${span(age(running.start_date))}`, "."),
    problems.length > 1 && el("p", { class: "buttons" }, repairButton(problems, "primary")));
}

// Why the run failed, but for the drift that is listed below with its buttons.
function reasons(report, problems) {
  const listed = new Set(problems.map((f) => f.alert));
  return (report.alerts ?? []).filter((text) => !listed.has(text)).map((text) => el("p", { class: "problem" }, text));
}

function waiting({ approvals }) {
  if (!approvals.length) return null;
  const items = approvals.map((t) => el("li", {}, "A backfill waits for your approval: ",
    link(`dags/${t.dag_id}/runs/${encodeURIComponent(t.dag_run_id)}/tasks/${t.task_id}/required_actions`, t.dag_run_id)));
  return el("section", { class: "card note" }, el("ul", { class: "bare" }, items));
}

function findingsCard(problems, all) {
  const items = problems.map((f) => {
    const shown = all.find((l) => l.name === f.collection)?.samples.filter((s) => s.verdict === f.verdict && !s.excused) ?? [];
    const causes = Object.entries(f.causes).filter(([cause]) => cause !== "unknown").map(([cause, n]) => `${number(n)} ${plain(cause)}`);
    return el("li", { class: "finding" },
      el("div", {}, el("strong", {}, f.collection), " ", el("span", { class: `chip ${f.verdict}` }, `${number(f.number)} ${f.verdict}`),
        el("p", { class: "quiet" }, [`since ${utc(f.since)} (${span(age(f.since))})`, ...causes].join(", ")),
        f.reasons.size > 0 && el("p", { class: "quiet" }, [...f.reasons].slice(0, 3).map(plain).join("; ")),
        f.reasons.size > 0 && f.alert && el("p", {}, f.alert),
        shown.length > 0 && el("details", {},
          el("summary", {}, `${count(shown.length, "sample")}`, el("span", { class: "unseen" }, ` of ${f.verdict} ${f.collection}`)),
          samples({ name: f.collection, samples: shown }))),
      el("p", { class: "buttons" }, repairButton([f], problems.length === 1 && "primary"), excuseButton(f.collection), sweepButton(f.collection)));
  });
  return el("section", { class: "card" }, el("h2", {}, "Open differences"), el("ul", { class: "bare" }, items));
}

const WHERE = {
  swept: () => formButton("Sweep all…", "Sweep every collection", "Compares every document with every row. One billed read for each document.", { scope: "sweep" }),
  drift: () => el("a", { href: "#collections" }, "See the collections"),
  clean: () => link(`dags/${api.RECONCILE}/runs`, "See the runs"),
  rejected: () => el("a", { href: "#collections" }, "See the collections"),
  migrations: () => link(`dags/${api.MIGRATIONS}`, "Open apply_migrations"),
  alive: () => link("variables", "See the Variables"),
  derived: () => el("a", { href: "#collections" }, "See the collections"),
};

function readyCard(report) {
  const ready = report.ready;
  if (!ready) return null;
  const old = age(report.at) > 86400;
  const answer = ready.answer && !old;
  const lacking = ready.checks.filter((c) => !c.ok).length;
  const summary = old ? "No: the last report is older than a day." : answer ? "Yes." : `No: ${count(lacking, "condition is", "conditions are")} not met.`;
  return el("section", { class: "card" },
    el("h2", {}, "Ready to switch reads?"),
    el("p", { class: `answer ${answer ? "good" : "bad"}` }, summary),
    el("ul", { class: "bare checks" }, ready.checks.map((c) =>
      el("li", { class: c.ok ? "good" : "bad" },
        el("span", { class: "sign", "aria-hidden": "true" }, c.ok ? "✓" : "✕"),
        el("div", {}, el("strong", {}, c.title), el("span", { class: "unseen" }, c.ok ? ": met. " : ": is not met. "),
          el("p", { class: "quiet" }, c.says, " ", !c.ok && WHERE[c.name]?.()))))));
}

function historyCard(report, runs) {
  const points = history(report, runs);
  return el("section", { class: "card" },
    el("h2", {}, "The last runs"),
    chart("Drift found", points, DRIFT),
    chart("Rows written", points, ["written"]),
    chart("Billed reads, without preflight and gate", points, ["billed"]),
    chart("Duration", points, ["seconds"], span));
}

function collectionsCard(all) {
  const counted = all.some((l) => l.documents !== null || l.rows !== null);
  const body = el("tbody", {}, all.flatMap((l) => collectionRows(l, counted)));
  const troubled = all.filter((l) => DRIFT.some((v) => l.open[v]) || l.excused || l.notExamined).length;
  const only = el("input", { type: "checkbox", onchange: () => body.classList.toggle("troubled", only.checked) });
  const columns = ["Collection", ...(counted ? ["Documents", "Rows"] : []), "Examined", "State", "Compared until", "Last sweep", ""];
  return el("section", { class: "card", id: "collections" },
    el("h2", {}, "Collections"),
    all.length > 8 && troubled > 0 && el("label", { class: "check" }, only, `Only the ${troubled} with open or excused differences`),
    el("table", {}, el("caption", { class: "unseen" }, "Each collection in the last report"),
      el("thead", {}, el("tr", {}, columns.map((c) => el("th", { scope: "col" }, c || el("span", { class: "unseen" }, "Actions"))))), body));
}

const cell = (label, ...content) => el("td", { "data-label": label }, ...content);
const figure = (value, counted) =>
  value === null ? el("span", { class: "quiet" }, "–") : el("span", { title: counted && `counted ${utc(counted)}` }, number(value));

function collectionRows(line, counted) {
  const trouble = DRIFT.some((v) => line.open[v]) || line.excused || line.notExamined;
  const state = line.notExamined
    ? [el("span", { class: "chip rejected" }, "not examined")]
    : [
        DRIFT.filter((v) => line.open[v]).map((v) => el("span", { class: `chip ${v}` }, `${number(line.open[v])} ${v}`)),
        line.inFlight > 0 && el("span", { class: "chip" }, `${number(line.inFlight)} in flight`),
        line.excused > 0 && el("span", { class: "chip" }, `${number(line.excused)} excused`),
        line.explained > 0 && el("span", { class: "chip", title: "orphans and duplicates: no drift" }, `${number(line.explained)} explained`),
        !trouble && !line.inFlight && (line.seen ? el("span", { class: "chip good" }, "agrees") : el("span", { class: "quiet" }, "not in the last run")),
      ];
  const more = el("tr", { class: "samples", hidden: !opened.has(line.name) }, el("td", { colspan: 8 }, samples(line)));
  const toggle = el("button", { type: "button", class: "plain", "aria-expanded": String(!more.hidden), onclick: () => {
    more.hidden = !more.hidden;
    toggle.setAttribute("aria-expanded", String(!more.hidden));
    more.hidden ? opened.delete(line.name) : opened.add(line.name);
  } }, `${count(line.samples.length, "sample")}`, el("span", { class: "unseen" }, ` of ${line.name}`));
  const row = el("tr", { class: trouble ? "" : "quietly" },
    el("th", { scope: "row" }, breakable(line.name)),
    counted && [cell("Documents", figure(line.documents, line.counted)), cell("Rows", figure(line.rows, line.counted))], cell("Examined", figure(line.examined)),
    cell("State", el("div", { class: "chips" }, state)),
    cell("Compared until", line.until ? ago(line.until) : ago(null)), cell("Last sweep", ago(line.swept)),
    cell("", el("div", { class: "buttons actions" }, line.samples.length > 0 && toggle, sweepButton(line.name))));
  return line.samples.length ? [row, more] : [row];
}

function samples(line) {
  return el("ul", { class: "bare" }, line.samples.map((s) =>
    el("li", { class: "finding" },
      el("div", {}, el("span", { class: `chip ${s.verdict}` }, plain(s.verdict)), " ", code(s.key),
        s.path && el("p", { class: "quiet" }, code(s.path)),
        el("p", { class: "quiet" }, [
          s.columns && `differs in ${s.columns.join(", ")}`, s.reason && plain(s.reason), s.cause && plain(s.cause), s.excused && "excused",
        ].filter(Boolean).join(" · "))),
      DRIFT.includes(s.verdict) && !s.excused && nameable(s.key) && el("p", { class: "buttons" }, excuseButton(line.name, s.key)))));
}

function excusesCard(report) {
  const total = report.open.filter((l) => l.excused).reduce((sum, l) => sum + l.number, 0);
  const items = report.excuses.map((e) =>
    el("li", { class: "finding" },
      el("div", {}, el("strong", {}, e.collection), " ", el("span", { class: "chip" }, plain(e.verdict)), " ", code(e.key),
        el("p", {}, el("q", {}, e.reason ?? "")), el("p", { class: "quiet" }, "by ", e.by, ", ", ago(e.since))),
      nameable(e.key) && el("p", { class: "buttons" }, formButton("Take back…", "Take an excuse back", "The difference counts as open again.", unexcuseOf(e.collection, e.key), null, `${e.collection} ${e.key}`))));
  return el("section", { class: "card" }, el("h2", {}, "Excuses"),
    el("details", {}, el("summary", {}, total > items.length ? `${number(total)} excused, the latest ${items.length} shown` : `${number(total)} excused`),
      el("ul", { class: "bare" }, items)));
}

function bundleCard({ backfill, migrations }) {
  const about = (dagId, latest, what) =>
    el("li", {}, link(`dags/${dagId}`, dagId), ": ", latest ? [what(latest.report), " (", runLink(dagId, latest.run.dag_run_id, latest.run.state), ", ", ago(latest.run.end_date), ")"] : "no report yet");
  return el("section", { class: "card" }, el("h2", {}, "The other DAGs"), el("ul", {},
    about(api.BACKFILL, backfill, (r) => r.verdict ?? plain(r.mode)),
    about(api.MIGRATIONS, migrations, (r) => r.verdict ?? plain(r.mode))));
}

function nothingYet({ dag, running, migrations, backfill }) {
  const step = (done, ...text) => el("li", { class: done ? "good" : "" }, el("span", { class: "sign", "aria-hidden": "true" }, done ? "✓" : "○"), el("div", {}, ...text));
  return el("section", { class: "card" },
    el("h2", {}, running ? "The first comparison is in progress" : "Nothing has been compared yet"),
    running && el("p", { class: "running" }, runLink(api.RECONCILE, running.dag_run_id)),
    el("ul", { class: "bare checks" },
      step(migrations?.report.mode === "apply", "Run ", link(`dags/${api.MIGRATIONS}`, api.MIGRATIONS), " with mode apply."),
      step(backfill && backfill.report.mode !== "dry_run", "Run ", link(`dags/${api.BACKFILL}`, api.BACKFILL), ": a dry run, then apply."),
      step(false, "Look now, and unpause ", link(`dags/${dag.dag_id}`, dag.dag_id), " when dual-write is on.")));
}

// --- one run ---------------------------------------------------------------------------------------------------------

async function oneRun(dagId, runId) {
  if (!api.OURS.includes(dagId)) return [el("h1", {}, "Parity"), el("p", { class: "card" }, "This run belongs to a DAG that this page is not about. ", link("plugin/parity", "Open the Parity page"))];
  const [run, report] = await Promise.all([api.run(dagId, runId), api.report(dagId, runId)]);
  const top = el("header", {}, el("h1", {}, report?.verdict ?? plain(dagId)),
    el("p", { class: "quiet" }, `${dagId}, `, runId, ", ", run.state, ". ", link("plugin/parity", "The Parity page")));
  if (!report) {
    const text = run.state === "running" || run.state === "queued" ? "The run is in progress. Its last task makes the report." : "The run ended without a report. See the task that failed.";
    return [top, el("p", { class: "card" }, text)];
  }
  if (dagId === api.MIGRATIONS) return [top, stepsCard(report)];
  if (dagId === api.BACKFILL) return [top, countsCard("Found", report.collections.filter((c) => c.phase === "gap")), countsCard("Verified", report.collections.filter((c) => c.phase === "verify"))];
  return [top, report.alerts?.length > 0 && el("section", { class: "card" }, el("h2", {}, "Why it failed"), el("ul", {}, report.alerts.map((a) => el("li", {}, a)))), countsCard("Examined", report.collections)];
}

function countsCard(title, collections) {
  if (!collections.length) return null;
  const verdicts = Object.keys(collections[0].counts).filter((v) => collections.some((c) => c.counts[v]));
  const extra = ["inserted", "updated", "deleted", "billed_reads"].filter((k) => collections.some((c) => c[k]));
  const all = collections.map((c) => ({ name: c.collection, samples: Object.entries(c.samples).flatMap(([verdict, found]) => found.map((s) => ({ verdict, ...s }))) }));
  const proven = collections.some((c) => c.verification);
  return el("section", { class: "card" }, el("h2", {}, title),
    el("table", {}, el("thead", {}, el("tr", {}, ["Collection", "Examined", ...verdicts.map(plain), ...extra.map(plain), ...(proven ? ["Verification"] : [])].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, collections.map((c) => el("tr", {}, el("th", { scope: "row" }, c.collection),
        cell("Examined", c.not_examined ? el("span", { class: "chip rejected" }, "not examined") : number(c.examined)),
        verdicts.map((v) => cell(plain(v), number(c.counts[v]))), extra.map((k) => cell(plain(k), number(c[k]))),
        proven && cell("Verification", plain(c.verification ?? "")))))),
    all.filter((l) => l.samples.length).map((l) => el("details", {}, el("summary", {}, `${l.name}: ${count(l.samples.length, "sample")}`), samples(l))));
}

const stepsCard = (report) =>
  el("section", { class: "card" }, el("h2", {}, "Migrations"),
    el("table", {}, el("thead", {}, el("tr", {}, ["Version", "Name", "State", "Reason"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, report.steps.map((s) => el("tr", {}, el("th", { scope: "row" }, s.version), cell("Name", s.name), cell("State", plain(s.state)), cell("Reason", s.reason ?? ""))))),
    (report.differences ?? []).length > 0 && el("ul", {}, report.differences.map((d) => el("li", {}, d))));

// --- loading ---------------------------------------------------------------------------------------------------------

function failed(error) {
  const says = {
    0: ["Airflow doesn't answer. This page will try again."],
    401: ["Your session has ended. ", link("auth/login", "Log in again")],
    403: ["You may not see ", el("strong", {}, api.RECONCILE), ". Ask for the right to read that DAG."],
    404: ["Airflow has no DAG ", el("strong", {}, api.RECONCILE), " (yet): see ", link("dags", "its import errors"), "."],
  }[error.status] ?? ["The page could not be loaded: ", error.message];
  return [el("h1", {}, "Parity"), el("section", { class: "card hero unknown", role: "alert" }, el("p", {}, says))];
}

async function refresh() {
  clearTimeout(timer);
  let wait = EVERY;
  page.setAttribute("aria-busy", "true");
  try {
    let content;
    if (asked.get("run_id")) content = await oneRun(asked.get("dag_id"), asked.get("run_id"));
    else {
      const found = await api.overview();
      content = overview(found);
      if (found.running) wait = WHILE_RUNNING;
      if (found.latest) announce(standing(found.latest.report, found.latest.run, found.dag).says);
    }
    show(content);
  } catch (error) {
    show(failed(error));
  }
  page.setAttribute("aria-busy", "false");
  timer = setTimeout(() => (document.hidden ? refreshWhenSeen() : refresh()), wait);
}

let announced = "";
function announce(text) {
  if (text !== announced) say((announced = text));
}

// Replaces the page, and gives the focus back to the control that had it.
function show(content) {
  const controls = () => [...page.querySelectorAll("a, button, input, summary")];
  const at = controls().indexOf(document.activeElement);
  const name = at >= 0 ? document.activeElement.textContent : "";
  const unfolded = [...page.querySelectorAll("details[open] > summary")].map((s) => s.textContent);
  page.replaceChildren(...content.flat().filter(Boolean));
  for (const summary of page.querySelectorAll("summary")) summary.parentElement.open = unfolded.includes(summary.textContent);
  const again = controls();
  if (at >= 0) (again[at]?.textContent === name ? again[at] : again.find((c) => c.textContent === name))?.focus();
}

function refreshWhenSeen() {
  document.addEventListener("visibilitychange", refresh, { once: true });
}

// A link may open the form with values: ?conf={"repair":"missing","collections":["posts"]}. It sends nothing itself.
function openFromLink() {
  const text = asked.get("conf");
  if (!text) return;
  try {
    const conf = JSON.parse(text);
    if (conf && typeof conf === "object" && !Array.isArray(conf))
      openForm(api.RECONCILE, "Trigger with values from a link", "Check these values: they come from the link that you followed.", conf, (run) => {
        note = started(run);
        refresh();
      });
  } catch {
    note = ["The link's values can't be read: they are not JSON."];
  }
}

followTheme();
openFromLink();
refresh();
