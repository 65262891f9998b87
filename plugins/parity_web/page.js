// The page: an overview in the navigation, and the report of one run on that run's page.

import * as api from "./api.js";
import { chart } from "./chart.js";
import { age, ago, breakable, clock, code, count, el, followTheme, link, named, nameOf, number, runLink, say, span, when } from "./dom.js";
import { alertsOf, boxes, csvOf, dollars, FILTERS, excuseAllOf, excuseOf, excuseTheseOf, findings, fromLink, history, intervened, isOld, lines, linesOf, nameable, narrowed, neverSwept, outcome, lineOf, plain, reasonsOf, repairTheseOf, signOff, spent, standing, steps, sweepOf, unexcuseOf } from "./facts.js";
import { openForm, started } from "./trigger.js";

const EVERY = 30_000;
const WHILE_RUNNING = 5_000;
const asked = new URLSearchParams(location.search);
const page = document.getElementById("page");
const SIGNS = { good: "✓", bad: "✕", unknown: "?" };
const chosen = new Set(); // samples whose box is checked, as collection:key: kept over a refresh
const opened = new Set(); // collections whose samples are shown: kept over a refresh
let timer = 0;
let note = null;
let asked_for = null; // the run that this page triggered, until it has ended
let may = { trigger: true, unpause: true };
let known = { problems: [], lines: [], rules: null }; // what the last report says is open, and the rules that it goes by
let busy = false; // a run runs: what the buttons would act on is being looked at

// --- buttons ---------------------------------------------------------------------------------------------------------

const button = (content, onclick, kind) => el("button", { type: "button", class: kind, onclick }, content);

const done = (run) => {
  asked_for = run;
  note = started(run);
  refresh();
};

// None for a viewer: Airflow would refuse at the end. `of` tells a screen reader what a button that stands in every line is
// about.
function formButton(text, title, form, kind, of) {
  if (!may.trigger) return null;
  const spoken = of && el("span", { class: "unseen" }, ` ${of}`);
  const made = button([text, spoken], () => openForm(title, { known, may, onDone: done, ...form }), kind);
  made.disabled = busy;
  return made;
}

const OFF = { repair: "off" };
const ALONE = { repair: "off", scope: "none" }; // an excuse takes effect at once: nothing has to be compared for it

// What the report says to press. Another DAG's form is Airflow's own, and who may not press reads what is to be done.
function pressButton(press, title, kind, of) {
  if (!press) return null;
  if (press.dag !== api.RECONCILE) return link(`dags/${press.dag}`, press.button);
  return formButton(press.button, title, { preset: press.conf }, kind, of) ?? el("span", { class: "quiet" }, press.says);
}

const repairTitle = (found) => `Repair ${count(found.reduce((sum, f) => sum + f.number, 0), "difference")}`;

const alertItem = (a) => el("li", { class: "finding" }, el("div", {}, el("p", {}, a.text)),
  a.press && el("p", { class: "buttons" }, pressButton(a.press, a.press.says, null, a.collection)));

const excuseButton = (collection, key) =>
  formButton("Excuse…", "Excuse a difference", { preset: excuseOf(collection, key), fixed: ALONE }, null, `${collection} ${key}`);

// A line's differences: by key, or by their verdict where the report doesn't show them all.
function excuseLineButton(found, samples) {
  const exact = excuseAllOf(found, samples);
  return formButton("Excuse…", `Excuse ${count(found.number, "difference")} in ${found.collection}`,
    { preset: exact ?? excuseOf(found.collection, found.verdict), fixed: ALONE }, null, `${found.verdict} ${found.collection}`);
}

const sweepButton = (collection) => formButton("Sweep…", `Sweep ${collection}`, { preset: sweepOf(collection), fixed: OFF }, null, collection);

// --- the overview ----------------------------------------------------------------------------------------------------

function overview(found) {
  const { latest, runs } = found;
  busy = Boolean(found.running);
  const top = [heading(found), note && el("p", { class: "card note" }, note), progressCard(found)];
  if (!latest) return [...top, nothingYet(found)];
  const { report } = latest;
  if (isOld(report)) return [...top, oldCard(latest), waiting(found), bundleCard(found)];
  const problems = findings(report);
  known = { problems, lines: lines(report, found.backfill), rules: report.rules, interventions: report.interventions };
  return [
    ...top,
    hero(found, problems),
    waiting(found),
    problems.length > 0 && findingsCard(problems, known.lines),
    listCard(report, latest.lister),
    el("div", { class: "columns" }, readyCard(report, problems), historyCard(report, runs)),
    collectionsCard(known.lines, report.at),
    report.excuses.length > 0 && excusesCard(report),
    report.interventions.length > 0 && interventionsCard(report.interventions),
    bundleCard(found),
  ];
}

function heading(found) {
  const look = formButton("Look now…", "Look now", { preset: { scope: "recent" }, fixed: OFF });
  return el("header", {},
    el("h1", {}, "Parity"),
    el("p", { class: "quiet" }, "Firestore (source) compared with Supabase (target)."),
    !may.trigger && el("p", { class: "quiet" }, "You may look at this page. To repair, excuse or sweep, ask for the right to trigger ", el("strong", {}, api.RECONCILE), "."),
    el("p", { class: "buttons" }, found.dag && look, found.dag && pauseButton(found.dag), button("Refresh", refresh)));
}

function pauseButton(dag) {
  if (!may.unpause) return null;
  const paused = dag.is_paused;
  return button(paused ? "Unpause" : "Pause", async () => {
    try {
      await api.pause(api.RECONCILE, !paused);
      note = [paused ? "Unpaused: scheduled runs begin." : "Paused: nothing is compared until it is unpaused. A run in progress goes on."];
    } catch (error) {
      note = [error.status === 403 ? `You may not ${paused ? "unpause" : "pause"} ${api.RECONCILE}.` : error.message];
    }
    refresh();
  });
}

// What the running run does, and what waits behind it.
function progressCard({ running, queued, steps: found, dag }) {
  const next = dag && !dag.is_paused && dag.next_dagrun_run_after;
  if (!running) return next ? el("p", { class: "quiet" }, `The next scheduled run begins at ${clock(next)}.`) : null;
  const waits = running.state === "queued";
  const says = { done: "done", now: "in progress", failed: "failed", skipped: "left out", ahead: "ahead" };
  const items = steps(found?.tasks ?? []).map((s) =>
    el("li", { class: `step ${s.state}`, "aria-current": s.state === "now" && "step" },
      el("span", { class: "sign", "aria-hidden": "true" }, { done: "✓", now: "●", failed: "✕", skipped: "–", ahead: "○" }[s.state]),
      s.id === "grace" && found.until ? `second look at ${clock(found.until)}` : s.says, el("span", { class: "unseen" }, `: ${says[s.state]}`)));
  return el("section", { class: "card", "aria-labelledby": "progress" },
    el("h2", { id: "progress", class: "running" }, waits ? "A run waits to begin" : "A run is in progress"),
    el("p", {}, named(running), running.start_date && `, for ${span(age(running.start_date))}`, ". ",
      waits && dag?.is_paused && ["It waits until the DAG is unpaused: ", link(`dags/${api.RECONCILE}`, "open it"), ". "],
      may.trigger && "The buttons wait until it has ended."),
    el("ol", { class: "bare steps" }, items),
    queued?.length > 0 && el("p", { class: "quiet" }, `${count(queued.length, "run")} wait${queued.length === 1 ? "s" : ""} behind it: `, queued.flatMap((r, i) => [i > 0 && ", ", named(r)])));
}

function oldCard({ report, run }) {
  known = { problems: [], lines: [], rules: null };
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
    !report.dual_write_enabled && el("p", {}, "Dual-write is switched off (Variable dual_write_enabled): what is missing is expected."),
    problems.length > 1 && el("p", { class: "buttons" }, pressButton(report.press, repairTitle(problems.filter((f) => f.alert?.press)), "primary", "all that is open")));
}

// Why the run failed, but for the drift that is listed below with its buttons.
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

function findingsCard(problems, all) {
  const items = problems.map((f) => {
    const line = all.find((l) => l.name === f.collection);
    const shown = line?.samples.filter((s) => s.verdict === f.verdict && !s.excused) ?? [];
    const causes = Object.entries(f.causes).filter(([cause]) => cause !== "unknown").map(([cause, n]) => `${number(n)} ${plain(cause)}`);
    return el("li", { class: "finding" },
      el("div", {}, el("strong", {}, f.collection), " ", el("span", { class: `chip ${f.verdict}` }, `${number(f.number)} ${f.verdict}`),
        el("p", { class: "quiet" }, [`since ${when(f.since)} (${span(age(f.since))})`, ...causes].join(", ")),
        reasonList(reasonsOf(f, line)),
        f.reasons.size > 0 && f.alert && el("p", {}, f.alert.text),
        shown.length > 0 && el("details", {},
          el("summary", {}, `${count(shown.length, "sample")}`, el("span", { class: "unseen" }, ` of ${f.verdict} ${f.collection}`)),
          samples({ name: f.collection, samples: shown }))),
      el("p", { class: "buttons" }, pressButton(f.alert?.press, repairTitle([f]), problems.length === 1 && "primary", `${f.verdict} ${f.collection}`), excuseLineButton(f, shown), sweepButton(f.collection)));
  });
  return el("section", { class: "card", id: "open" }, el("h2", {}, "Open differences"), el("ul", { class: "bare" }, items));
}

// --- all open differences ----------------------------------------------------------------------------------------------

const list = { run: null, rows: null, filters: {}, open: false }; // kept over a refresh
const AT_ONCE = 200; // lines shown; filters and the CSV take all

function listCard(report, run) {
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
  return el("section", { class: "card", id: "list" }, el("h2", {}, `One by one: ${count(listed.of, "open difference")}, excused ones included`), fold);
}

function listBody(listed) {
  const lines = el("tbody", {});
  const told = el("p", { class: "quiet", role: "status" });
  const bar = el("p", { class: "buttons chosen" });
  const acts = (r) => known.rules?.drift.includes(r.verdict) && !r.excused_by && nameable(r.key) && may.trigger;
  const lookup = { ...known, lines: linesOf(list.rows) };
  const shown = () => narrowed(list.rows, list.filters);
  const fill = () => {
    const rows = shown();
    const all = el("button", { type: "button", onclick: () => { rows.filter(acts).forEach((r) => chosen.add(lineOf(r.collection, r.key))); draw(); } }, `Choose all ${number(rows.filter(acts).length)}`);
    const none = el("button", { type: "button", onclick: () => { chosen.clear(); draw(); } }, "Choose none");
    const save = el("button", { type: "button", onclick: () => download("open-differences.csv", csvOf(shown())) }, "Download CSV");
    const these = list.rows.filter((r) => acts(r) && chosen.has(lineOf(r.collection, r.key)));
    bar.replaceChildren(...(may.trigger ? [all] : []), ...(these.length ? [none] : []), save, ...chosenButtons(these, lookup));
  };
  const draw = () => {
    const rows = shown();
    told.textContent = `${count(rows.length, "difference")}${rows.length > AT_ONCE ? `, the first ${AT_ONCE} shown` : ""}.`;
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
  const cut = listed.rows < listed.of && el("p", { class: "problem" }, `The list holds ${number(listed.rows)} of ${number(listed.of)}, the oldest open ones first. `, may.trigger && "A run that you trigger lists up to 10,000: ", may.trigger && formButton("List more…", "List the open differences", { preset: {}, fixed: ALONE }));
  return [cut, el("div", { class: "filters" }, el("div", { class: "field" }, el("label", { for: "list-text" }, "search"), search), selects), told, bar,
    el("table", {}, el("caption", { class: "unseen" }, "Open differences"), el("thead", {}, el("tr", {}, ["", "Collection", "Verdict", "Key", "Since", "Why"].map((h) => el("th", { scope: "col" }, h || el("span", { class: "unseen" }, "Chosen"))))), lines)].filter(Boolean);
}

function listLine(r, acts, fill) {
  const id = lineOf(r.collection, r.key);
  const box = acts && el("input", { type: "checkbox", "aria-label": `Choose ${r.collection} ${r.key}`, checked: chosen.has(id), onchange: () => { box.checked ? chosen.add(id) : chosen.delete(id); fill(); } });
  const why = [r.columns?.length > 0 && `differs in ${r.columns.join(", ")}`, r.reason && plain(r.reason), r.cause && plain(r.cause), r.excused_by && `excused by ${r.excused_by}`];
  return el("tr", {}, cell("Chosen", box || ""), cell("Collection", breakable(r.collection)), cell("Verdict", el("span", { class: `chip ${r.verdict}` }, plain(r.verdict))),
    cell("Key", code(r.key), r.path && el("p", { class: "quiet" }, code(r.path))), cell("Since", ago(r.since)), cell("Why", why.filter(Boolean).join(" · ")));
}

function download(name, text, type = "text/csv") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = el("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const WHERE = {
  swept: () => formButton("Sweep all…", "Sweep every collection", { preset: { scope: "sweep" }, fixed: OFF }),
  drift: (some) => (some ? el("a", { href: "#open" }, "See what is open") : el("a", { href: "#collections" }, "See the collections")),
  clean: () => link(`dags/${api.RECONCILE}/runs`, "See the runs"),
  rejected: (some) => (some ? el("a", { href: "#open" }, "See what is open") : el("a", { href: "#collections" }, "See the collections")),
  migrations: () => link(`dags/${api.MIGRATIONS}`, "Open apply_migrations"),
  alive: () => link("variables", "See the Variables"),
  derived: () => el("a", { href: "#collections" }, "See the collections"),
};

function readyCard(report, problems) {
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
          el("p", { class: "quiet" }, c.says, " ", !c.ok && WHERE[c.name]?.(problems.length > 0)))))),
    daysList(report),
    el("p", { class: "buttons" }, signOffLink()));
}

// On a page of its own, which can be printed: Airflow's frame around this one can't.
function signOffLink() {
  const made = link("parity/?signoff=1", "The sign-off, to print or download");
  made.target = "_blank";
  return made;
}

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

async function signOffPage() {
  const found = await api.overview();
  if (!found.latest?.report.ready) return [el("h1", {}, "Ready to switch reads?"), el("p", { class: "card" }, "No run has answered it yet.")];
  const { report, run, lister } = found.latest;
  const listed = report.listed?.pages ? await api.openList(api.RECONCILE, lister.dag_run_id, report.listed.pages).catch(() => []) : [];
  const told = signOff(report, run, listed.filter((r) => r.excused_by), may.name);
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
    table("Evidence", ["Condition", "Met", "Evidence"], told.checks.map((c) => row(c.title, c.ok ? "✓ yes" : "✕ no", c.says))),
    table(`The last ${told.days.length} days (UTC)`, ["Day", "State", "Runs", "Runs with drift"], told.days.map((d) => row(d.day, `${STATES[d.state][0]} ${STATES[d.state][1]}`, number(d.runs), d.not_clean.flatMap((id, i) => [i > 0 && ", ", code(id)])))),
    table("Collections", ["Collection", "Compared until", "Every document and row"], told.collections.map((c) => row(c.name, when(c.examined_until), c.swept_at ? when(c.swept_at) : "never"))),
    told.excused > 0 && table(`${count(told.excused, "difference")} excused${lacking > 0 ? `, ${number(told.excuses.length)} listed` : ""}`, ["Difference", "Verdict", "By", "Reason", "At"],
      told.excuses.map((e) => row([`${e.collection} `, code(e.key)], plain(e.verdict), e.by, e.reason ?? "", e.at ? when(e.at) : ""))),
    told.interventions.length > 0 && table("The last interventions", ["Person", "What", "Reason", "At"], told.interventions.map((i) => row(i.by, intervened(i), i.reason ?? "", when(i.at)))),
  ];
}

function historyCard(report, runs) {
  const points = history(report, runs);
  return el("section", { class: "card" },
    el("h2", {}, "The last runs"),
    chart("Differences found, excused ones among them", points, report.rules.drift),
    chart("Rows written", points, ["written"]),
    chart("Billed reads", points, ["billed"]),
    chart("Duration", points, ["seconds"], span),
    costs(report));
}

function costs(report) {
  const found = spent(report);
  if (!found) return null;
  return el("p", { class: "quiet costs" }, `Billed reads: ${number(Math.round(found.reads))} a day, `, el("strong", {}, dollars(found.day)), " a day, ", el("strong", {}, dollars(found.month)),
    ` in 30 days, by the last ${count(found.of, "whole day")} of all DAGs, without preflight, and the list price of $${report.price} per 100,000.`);
}

let few = matchMedia("(max-width: 820px)").matches; // on a phone each collection takes a screen

function collectionsCard(all, at) {
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

const NUMBERS = ["Documents", "Rows", "Examined"];
const cell = (label, ...content) => el("td", { "data-label": label }, ...content);
const numeric = (label, ...content) => el("td", { "data-label": label, class: "figure" }, ...content);
// A count of another day than the report's says so: it may be weeks old.
const figure = (value, counted, at) =>
  value === null ? el("span", { class: "quiet" }, "–") : el("span", {}, number(value), counted && counted.slice(0, 10) !== at?.slice(0, 10) && el("small", { class: "quiet" }, ` (${counted.slice(5, 10)})`));

const differs = (line) => Object.values(line.open).some(Boolean);

function collectionRows(line, counted, at) {
  const trouble = differs(line) || line.excused || line.notExamined;
  const state = line.notExamined
    ? [el("span", { class: "chip rejected" }, "not examined")]
    : [
        Object.keys(line.open).filter((v) => line.open[v]).map((v) => el("span", { class: `chip ${v}` }, `${number(line.open[v])} ${v}`)),
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
    counted && [numeric("Documents", figure(line.documents, line.counted, at)), numeric("Rows", figure(line.rows, line.counted, at))], numeric("Examined", figure(line.examined)),
    cell("State", el("div", { class: "chips" }, state)),
    cell("Compared until", line.until ? ago(line.until) : ago(null)), cell("Last sweep", ago(line.swept)),
    cell("", el("div", { class: "buttons actions" }, line.samples.length > 0 && toggle, sweepButton(line.name))));
  return line.samples.length ? [row, more] : [row];
}

// Each reason with its number, as the report's text has them. A table's own refusal is shown as it is: it names a constraint.
const reasonList = (found, verdicts) =>
  found.length > 0 && el("ul", { class: "bare quiet" }, found.map((r) =>
    el("li", {}, verdicts && [el("span", { class: `chip ${r.verdict}` }, plain(r.verdict)), " "],
      `${number(r.number)} with the reason ${/^[a-z_]+$/.test(r.reason) ? plain(r.reason) : r.reason}`)));

function samples(line) {
  const acts = (s) => known.rules?.drift.includes(s.verdict) && !s.excused && nameable(s.key) && may.trigger;
  const about = line.samples.filter(acts).map((s) => ({ collection: line.name, ...s }));
  const bar = el("p", { class: "buttons chosen" });
  const fill = () => bar.replaceChildren(...chosenButtons(about.filter((s) => chosen.has(lineOf(line.name, s.key)))));
  const box = (s) => {
    const id = lineOf(line.name, s.key);
    const made = el("input", { type: "checkbox", "aria-label": `Choose ${line.name} ${s.key}`, checked: chosen.has(id), onchange: () => { made.checked ? chosen.add(id) : chosen.delete(id); fill(); } });
    return made;
  };
  fill();
  return el("div", {}, reasonList(line.reasons ?? [], true), el("ul", { class: "bare" }, line.samples.map((s) =>
    el("li", { class: "finding" },
      el("div", {}, acts(s) && about.length > 1 && [box(s), " "], el("span", { class: `chip ${s.verdict}` }, plain(s.verdict)), " ", code(s.key),
        s.path && el("p", { class: "quiet" }, code(s.path)),
        el("p", { class: "quiet" }, [
          s.columns && `differs in ${s.columns.join(", ")}`, s.reason && plain(s.reason), s.cause && plain(s.cause), s.excused && "excused",
        ].filter(Boolean).join(" · "))),
      acts(s) && el("p", { class: "buttons" }, onlyThisButton(line.name, s), excuseButton(line.name, s.key))))), bar);
}

function onlyThisButton(collection, sample) {
  const conf = repairTheseOf([{ collection, ...sample }], known);
  const needed = conf ? conf.keys.length - 1 : 0;
  return conf && formButton("Only this one…", `Repair one difference in ${collection}`,
    { preset: conf, warns: needed ? `It needs ${count(needed, "other row")} first, named below before it.` : null }, null, `${sample.verdict} ${collection} ${sample.key}`);
}

// What is done to exactly the differences whose boxes are checked.
function chosenButtons(these, lookup = known) {
  if (!these.length) return [];
  const conf = repairTheseOf(these, lookup);
  const says = count(these.length, "difference");
  return [
    conf && formButton(`Repair ${number(these.length)} chosen…`, `Repair ${says}`, { preset: conf, known: lookup }),
    formButton(`Excuse ${number(these.length)} chosen…`, `Excuse ${says}`, { preset: excuseTheseOf(these), fixed: ALONE }),
  ].filter(Boolean);
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

// Who did what, the latest first; what wrote can be taken back as long as the journal has it.
function interventionsCard(found) {
  const undo = (i) => i.journaled > i.undone && formButton("Undo…", `Undo: ${i.kind} by ${i.by}`, { preset: { undo: i.run_id } }, null, i.run_id);
  const items = found.map((i) =>
    el("li", { class: "finding" },
      el("div", {}, el("strong", {}, i.by), " ", intervened(i), i.undone > 0 && [" ", el("span", { class: "chip" }, i.undone >= i.journaled ? "undone" : `${number(i.undone)} undone`)],
        i.reason && el("p", {}, el("q", {}, i.reason)),
        el("p", { class: "quiet" }, runLink(i.dag_id, i.run_id, `${i.dag_id}, ${when(i.at)}`))),
      undo(i) && el("p", { class: "buttons" }, undo(i))));
  return el("section", { class: "card", id: "interventions" }, el("h2", {}, "Interventions"),
    el("details", {}, el("summary", {}, `The last ${count(found.length, "intervention")}`), el("ul", { class: "bare" }, items)));
}

function bundleCard({ backfill, migrations }) {
  const about = (dagId, latest, what) =>
    el("li", {}, link(`dags/${dagId}`, dagId), ": ", latest ? [what(latest.report), " (", runLink(dagId, latest.run.dag_run_id, el("span", { class: latest.run.state === "failed" && "failed" }, latest.run.state)), ", ", ago(latest.run.end_date), ")"] : "no report yet");
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
  if (!api.OURS.includes(dagId)) return [el("h1", {}, "Parity"), el("p", { class: "card" }, "This run belongs to a DAG that this page is not about. ", link("plugin/parity", "Open the Parity page"))];
  const [run, report] = await Promise.all([api.run(dagId, runId), api.report(dagId, runId)]);
  const top = el("header", { class: "run" }, el("h1", {}, report?.verdict ?? plain(dagId)), el("p", {}, link("plugin/parity", "The Parity page")));
  if (!report) {
    if (!api.ended(run)) return [top, el("p", { class: "card" }, "The run is in progress. Its last task makes the report.")];
    const lost = (await api.tasks(dagId, runId).catch(() => [])).filter((t) => t.state === "failed");
    const logs = lost.map((t) => el("li", {}, link(`dags/${dagId}/runs/${encodeURIComponent(runId)}/tasks/${t.task_id}`, t.task_id)));
    return [top, el("section", { class: "card" }, el("p", {}, "The run ended without a report. ", lost.length ? "The tasks that failed:" : "None of its tasks failed: it was cut off, by its timeout or by hand."), el("ul", {}, logs))];
  }
  const told = alertsOf(report);
  const why = told.length > 0 && el("section", { class: "card" }, el("h2", {}, "Why it failed"), el("ul", { class: "bare" }, told.map(alertItem)));
  if (report.stopped) return [top, why];
  if (dagId === api.MIGRATIONS) return [top, why, stepsCard(report)];
  known = { problems: [], lines: [], rules: isOld(report) ? null : report.rules, asOf: "As this run found it" };
  if (dagId === api.BACKFILL) return [top, why, countsCard(report.approval === "rejected" ? "Found, and rejected" : "Found", report.collections.filter((c) => c.phase === "gap")), countsCard("Verified", report.collections.filter((c) => c.phase === "verify"))];
  if (isOld(report)) return [top, why, countsCard("Examined", report.collections)];
  const problems = findings(report);
  known = { ...known, problems, lines: lines(report, null) };
  if (asked_for) await tellOutcome([await api.run(api.RECONCILE, asked_for.dag_run_id)]);
  busy = Boolean(asked_for);
  return [top, note && el("p", { class: "card note" }, note), why, problems.length > 0 && findingsCard(problems, known.lines), countsCard("Examined", report.collections)];
}

const amount = (value) => (value ? number(value) : el("span", { class: "quiet" }, "–"));

function countsCard(title, collections) {
  if (!collections.length) return null;
  const verdicts = Object.keys(collections[0].counts).filter((v) => collections.some((c) => c.counts[v]));
  const extra = ["inserted", "updated", "deleted", "billed_reads"].filter((k) => collections.some((c) => c[k]));
  const all = collections.map((c) => ({ name: c.collection, samples: Object.entries(c.samples).flatMap(([verdict, found]) => found.map((s) => ({ verdict, ...s }))) }));
  const proven = collections.some((c) => c.verification);
  return el("section", { class: "card" }, el("h2", {}, title),
    el("table", {}, el("thead", {}, el("tr", {}, ["Collection", "Examined", ...verdicts.map(plain), ...extra.map(plain), ...(proven ? ["Verification"] : [])].map((h, i) => el("th", { scope: "col", class: i > 0 && h !== "Verification" && "figure" }, h)))),
      el("tbody", {}, collections.map((c) => el("tr", {}, el("th", { scope: "row" }, c.collection),
        numeric("Examined", c.not_examined ? el("span", { class: "chip rejected" }, "not examined") : amount(c.examined)),
        verdicts.map((v) => numeric(plain(v), amount(c.counts[v]))), extra.map((k) => numeric(plain(k), amount(c[k]))),
        proven && cell("Verification", plain(c.verification ?? "")))))),
    all.filter((l) => l.samples.length).map((l) => el("details", {}, el("summary", {}, `${l.name}: ${count(l.samples.length, "sample")}`), samples(l))));
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
    may = await api.may();
    if (asked.get("signoff")) content = await signOffPage();
    else if (asked.get("run_id")) content = await oneRun(asked.get("dag_id"), asked.get("run_id"));
    else {
      const found = await api.overview();
      await tellOutcome(found.runs);
      content = overview(found);
      if (found.running) wait = WHILE_RUNNING;
      if (found.latest) announce(isOld(found.latest.report) ? found.latest.report.verdict : standing(found.latest.report, found.latest.run, found.dag).says);
    }
    show(content);
    seen = new Date().toISOString();
  } catch (error) {
    // What was known is worth more than an empty page, with its age.
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

// What the run did that this page triggered, in place of "asked for".
async function tellOutcome(runs) {
  const run = asked_for && runs.find((r) => r.dag_run_id === asked_for.dag_run_id);
  if (!run || !api.ended(run)) return;
  note = [outcome(await api.report(api.RECONCILE, run.dag_run_id)), " (", named(run), ")"];
  asked_for = null;
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
  page.replaceChildren(...content.flat().filter(Boolean));
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
  if (!text || !may.trigger || asked.get("run_id")) return;
  let conf;
  try {
    conf = JSON.parse(text);
  } catch {
    conf = null;
  }
  if (!conf || typeof conf !== "object" || Array.isArray(conf)) {
    note = ["The link's values can't be read: they are not a JSON object."];
    return;
  }
  const { preset, left } = fromLink(conf);
  const brakes = left.length ? ` It also asked for ${left.join(" and ")}: no link sets a limit. If you mean it, set it below.` : "";
  openForm("Values from a link", { preset, warns: `Check these values: they come from the link that you followed.${brakes}`, known, may, onDone: done });
}

followTheme();
refresh().then(() => {
  openFromLink();
  if (note) refresh();
});
