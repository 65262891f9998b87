// Pure: a report in the page's terms. No network, no document. The report itself says which differences are open and which
// repair ends them (`rules`, `open`, `alerts`); model/run_report.py has its shape.

const VERSION = 3; // of reports: one of an earlier version has other fields
const LATE = 45 * 60; // seconds: three scheduled runs

export const plain = (word) => String(word).replaceAll("_", " ");

// Made by an earlier version of the bundle: it is shown in its own words, and nothing is concluded from it.
export const isOld = (report) => !(report.version >= VERSION);

// An alert of an earlier version is its text.
export const alertsOf = (report) => (report.alerts ?? []).map((a) => (typeof a === "string" ? { collection: null, kind: null, text: a, press: null } : a));

// The differences that fail the run, by collection and verdict, each group with its alert.
export function findings(report) {
  const groups = new Map();
  for (const line of report.open) {
    if (!line.fails) continue;
    const key = JSON.stringify([line.collection, line.verdict]);
    const group = groups.get(key) ?? { collection: line.collection, verdict: line.verdict, number: 0, since: line.since, causes: {}, reasons: new Map(), alert: null };
    group.number += line.number;
    group.since = line.since < group.since ? line.since : group.since;
    if (line.reason) group.reasons.set(line.reason, (group.reasons.get(line.reason) ?? 0) + line.number);
    group.causes[line.cause] = (group.causes[line.cause] ?? 0) + line.number;
    groups.set(key, group);
  }
  for (const group of groups.values())
    group.alert = report.alerts.find((a) => a.collection === group.collection && a.kind === group.verdict) ?? null;
  return [...groups.values()].sort((a, b) => (a.since < b.since ? -1 : 1));
}

// A line names a collection, and in it a key, a verdict, or * for all open differences.
const meant = (line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)];
export const lineOf = (collection, key) => `${collection}:${key}`;

// The open differences that a repair of this one needs: missing rows above a missing one, rows that go with an extra one.
export function neededBy(collection, sample, all) {
  const others = all.flatMap((l) => l.samples.map((s) => ({ collection: l.name, ...s }))).filter((s) => !s.excused && nameable(s.key));
  const above = (s) => sample.verdict === "missing" && s.verdict === "missing" && s.path && sample.path?.startsWith(`${s.path}/`);
  const with_ = (s) => sample.verdict === "extra" && s.verdict === "extra" && s.requires && s.requires === sample.path;
  return others.filter((s) => above(s) || with_(s)).map((s) => lineOf(s.collection, s.key));
}

// The least repair that ends differences with these verdicts, by the report's rules; undefined if none ends all of them.
const least = (verdicts, rules) => Object.keys(rules.repairs).find((repair) => verdicts.every((v) => rules.repairs[repair][v]));

// The conf that repairs exactly these differences, after those that they need; null if no repair can. `chosen`:
// [{collection, ...sample}].
export function repairTheseOf(chosen, { lines: all, rules }) {
  const repairable = chosen.filter((s) => least([s.verdict], rules) && nameable(s.key));
  if (!repairable.length) return null;
  const needed = repairable.flatMap((s) => neededBy(s.collection, s, all));
  return { repair: least(repairable.map((s) => s.verdict), rules), keys: [...new Set([...needed, ...repairable.map((s) => lineOf(s.collection, s.key))])] };
}

export const excuseTheseOf = (chosen) => ({ excuse: chosen.map((s) => lineOf(s.collection, s.key)), excuse_reason: "" });

export const excuseOf = (collection, key) => ({ excuse: [`${collection}:${key}`], excuse_reason: "" });

// The conf that excuses a line's differences and nothing else, each by its key; null if the report doesn't show them all.
export function excuseAllOf(group, samples) {
  const keys = samples.filter((s) => s.verdict === group.verdict && !s.excused).map((s) => s.key);
  if (keys.length !== group.number || !keys.every(nameable)) return null;
  return { excuse: keys.map((key) => `${group.collection}:${key}`), excuse_reason: "" };
}
export const unexcuseOf = (collection, key) => ({ unexcuse: [`${collection}:${key}`] });
export const sweepOf = (collection) => ({ scope: "sweep", collections: [collection] });

// The writes of a repair of the differences open now: [{collection, action, number, keys}]. A deleted row may have
// dependents, which are open too, or which the run finds. `named`: the lines that it is limited to.
export function planned(repair, collections, { problems, lines: all, rules }, named = []) {
  const actions = rules?.repairs[repair] ?? {};
  if (named.length) return plannedOf(actions, problems, all, named);
  return problems
    .filter((f) => actions[f.verdict] && collections.includes(f.collection))
    .map((f) => ({
      collection: f.collection,
      action: actions[f.verdict],
      number: f.number,
      keys: (all.find((l) => l.name === f.collection)?.samples ?? []).filter((s) => s.verdict === f.verdict && !s.excused).map((s) => s.key),
    }));
}

function plannedOf(actions, problems, all, named) {
  const groups = new Map();
  const add = (collection, verdict, number, keys) => {
    if (!actions[verdict]) return;
    const id = JSON.stringify([collection, verdict]);
    const group = groups.get(id) ?? { collection, action: actions[verdict], number: 0, keys: [] };
    groups.set(id, { ...group, number: group.number + number, keys: [...group.keys, ...keys] });
  };
  for (const [collection, key] of named.map(meant)) {
    const shown = (all.find((l) => l.name === collection)?.samples ?? []).filter((s) => !s.excused);
    const meantAll = problems.filter((f) => f.collection === collection && (key === "*" || f.verdict === key));
    if (meantAll.length)
      for (const f of meantAll)
        add(collection, f.verdict, f.number, shown.filter((s) => s.verdict === f.verdict).map((s) => s.key));
    else for (const s of shown.filter((s) => s.key === key)) add(collection, s.verdict, 1, [s.key]);
  }
  return [...groups.values()];
}

const BACK = { insert: "delete", update: "update", delete: "insert" };

// The most that an undo of an intervention would write: [{collection, action, number, keys}]. Rows written since are left.
export function plannedUndo(intervention, collections) {
  return Object.entries(intervention?.numbers ?? {}).filter(([name]) => collections.includes(name)).flatMap(([collection, actions]) =>
    Object.entries(actions).map(([action, number]) => ({ collection, action: BACK[action], number, keys: [] })));
}

// The filters of a list of open differences; an empty value filters nothing.
const AGES = { "": 0, "an hour": 3600, "a day": 86400, "a week": 604800 };
export const FILTERS = {
  collection: (rows) => [...new Set(rows.map((r) => r.collection))].sort(),
  verdict: (rows) => [...new Set(rows.map((r) => r.verdict))].sort(),
  cause: (rows) => [...new Set(rows.map((r) => r.cause ?? "unknown"))].sort(),
  excused: () => ["open", "excused"],
  older: () => Object.keys(AGES).filter(Boolean),
};

export function narrowed(rows, { text = "", collection, verdict, cause, excused, older } = {}, now = Date.now()) {
  const wanted = text.trim().toLowerCase();
  return rows.filter((r) =>
    (!collection || r.collection === collection) && (!verdict || r.verdict === verdict) && (!cause || (r.cause ?? "unknown") === cause)
    && (!excused || Boolean(r.excused_by) === (excused === "excused")) && (!older || now - Date.parse(r.since) > 1000 * AGES[older])
    && (!wanted || [r.key, r.path, r.reason, ...(r.columns ?? [])].some((t) => t?.toLowerCase().includes(wanted))));
}

// A list as a CSV file. A cell that begins like a formula gets an apostrophe: an id may be anything.
export function csvOf(rows) {
  const names = ["collection", "key", "verdict", "reason", "cause", "columns", "path", "since", "excused_by"];
  const cell = (value) => {
    const text = Array.isArray(value) ? value.join(" ") : String(value ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  return [names.join(","), ...rows.map((r) => names.map((n) => cell(r[n])).join(","))].join("\r\n");
}

// The listed differences as lines, from which previews are made.
export const linesOf = (rows) =>
  [...new Set(rows.map((r) => r.collection))].map((name) => ({ name, samples: rows.filter((r) => r.collection === name).map((r) => ({ ...r, excused: Boolean(r.excused_by) })) }));

// The cost of the last whole days' reads, a day and in thirty days; null if it isn't known. The report's `days`: today first.
export function spent(report) {
  const whole = (report.days ?? []).slice(1, 8).filter((d) => d.runs || d.billed);
  if (!whole.length || !report.price) return null;
  const day = (whole.reduce((sum, d) => sum + d.billed, 0) / whole.length) * report.price / 100_000;
  return { reads: whole.reduce((sum, d) => sum + d.billed, 0) / whole.length, day, month: 30 * day, of: whole.length };
}

export const dollars = (value) => (value > 0 && value < 0.01 ? "less than $0.01" : `$${value.toFixed(2)}`);

// The last days, oldest first: clean, with drift, or without a run.
export const boxes = (report) => [...(report.days ?? [])].reverse().map((d) => ({ ...d, state: !d.runs ? "none" : d.clean ? "clean" : "drift" }));

// Whether reads may be switched, as one value with its evidence, to print and to download. `excused`: [{...}] of the list.
export function signOff(report, run, excused, by, now = new Date()) {
  const total = (report.open ?? []).filter((l) => l.excused).reduce((sum, l) => sum + l.number, 0);
  const old = (now - Date.parse(report.at)) / 1000 > 86400;
  return {
    question: "Ready to switch reads?", answer: report.ready.answer && !old, asked_by: by ?? null, asked_at: now.toISOString(),
    report: { dag_id: run.dag_id, run_id: run.dag_run_id, at: report.at, by: run.triggering_user_name ?? run.run_type ?? null, older_than_a_day: old },
    checks: report.ready.checks.map(({ name, title, ok, says }) => ({ name, title, ok, says })),
    days: boxes(report).map(({ day, state, runs, not_clean }) => ({ day, state, runs, not_clean: not_clean ?? [] })),
    collections: Object.entries(report.ages ?? {}).map(([name, a]) => ({ name, examined_until: a.examined_until, swept_at: a.swept_at })),
    excused: total,
    excuses: excused.map(({ collection, key, verdict, excused_by, excuse_reason, excused_at }) => ({ collection, key, verdict, by: excused_by, reason: excuse_reason, at: excused_at })),
    interventions: [...(report.interventions ?? []), ...(report.switched ?? [])].sort((a, b) => Date.parse(b.at) - Date.parse(a.at)),
    migrations: report.migrations ?? null,
  };
}

const KINDS = { repair: "repaired", backfill: "backfilled", excuse: "excused", unexcuse: "took an excuse back in", undo: "undid a run", approval: "approved a backfill", rejection: "rejected a backfill", migration: "migrated" };

// An intervention's numbers, in words: "2 inserted in posts, 1 deleted in comments".
export function intervened({ kind, numbers }) {
  const parts = Object.entries(numbers).map(([name, n]) => typeof n === "number" ? `${n.toLocaleString("en")} in ${name}`
    : `${Object.entries(n).map(([action, m]) => `${m.toLocaleString("en")} ${{ insert: "inserted", update: "updated", delete: "deleted" }[action] ?? action}`).join(", ")} in ${name}`);
  const done = KINDS[kind] ?? kind;
  return parts.length ? `${done}: ${parts.join("; ")}` : done;
}

const rows = (n) => `${n.toLocaleString("en")} row${n === 1 ? "" : "s"}`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const listed = (names, of) => (names.length === of ? `all ${of} collections` : names.length > 3 ? `${names.length} collections` : names.join(", "));

// The effect of a run with these values: a sentence, the verb for the button, and whether rows may be deleted.
export function effect(values, declared, plan, drift) {
  const { repair = "off", scope = "recent", excuse, unexcuse, keys, undo } = values;
  const scanned = listed(values.collections ?? declared, declared.length);
  const says = [
    keys?.length ? `Looks at ${differences(keys, drift)} and compares nothing else.` : scope === "none" ? "Compares nothing." : scope === "sweep" ? `Compares every document with every row in ${scanned}: one billed read for each document.` : `Compares the writes since the last run in ${scanned}.`,
  ];
  if (excuse?.length) says.push(`Excuses ${differences(excuse, drift)}${scope === "none" ? ", at once" : ""}: differences that stay open there are reported, and fail no run.`);
  if (unexcuse?.length) says.push(`Takes ${unexcuse.length === 1 ? "an excuse" : `${unexcuse.length} excuses`} back: these count as open again.`);
  if (undo) says.splice(0, 1, `Takes back the writes of the run named above in ${scanned}, and compares nothing. A row that somebody has written since, or that other rows reference, is left, and reported. Rows that differ again are open: the next run looks at them. The undo can be undone.`);
  else if (repair === "off") says.push("Writes nothing to your tables.");
  else {
    const may = { missing: "inserts missing rows", missing_and_stale: "inserts missing rows and updates stale ones", all: "inserts missing rows, updates stale ones and DELETES rows whose documents are gone" };
    says.push(keys?.length ? `Then ${may[repair]}, of these only: a row that one of them needs and that isn't named is reported, not written. The journal keeps every previous row.`
      : `Then ${may[repair]}, also those that this run finds; the journal keeps every previous row.`);
  }
  const numbers = {};
  for (const p of plan) numbers[p.action] = (numbers[p.action] ?? 0) + p.number;
  const parts = ["delete", "insert", "update"].filter((a) => numbers[a]).map((a, i) => (i ? `${a} ${numbers[a].toLocaleString("en")}` : `${a} ${rows(numbers[a])}`));
  const writes = parts.length ? capital(parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : parts[0]) : repair === "all" ? "Repair, with deletes" : "Repair";
  const deleting = undo ? numbers.delete > 0 : repair === "all";
  const verb = undo ? (parts.length ? `Undo: ${writes.toLowerCase()}` : "Undo") : repair !== "off" ? writes : excuse?.length ? `Excuse ${differences(excuse, drift)}` : unexcuse?.length ? "Take back" : keys?.length ? "Look at these" : scope === "none" ? "List what is open" : scope === "sweep" ? "Sweep" : "Look now";
  return { says: says.join(" "), verb, deletes: deleting };
}

function differences(lines, drift) {
  const named = lines.map(meant);
  const keys = named.filter(([, key]) => key !== "*" && !drift.includes(key)).length;
  const parts = named.filter(([, key]) => key === "*").map(([name]) => `everything open in ${name}`);
  parts.push(...named.filter(([, key]) => drift.includes(key)).map(([name, key]) => `all that is ${key} in ${name}`));
  if (keys) parts.push(`${keys} difference${keys === 1 ? "" : "s"}`);
  return parts.join(" and ");
}

// The report of the last run that compared, with the differences that are open since a later one that compared nothing (an
// excuse, a repair by key). `later`: [{run, report}], the newest first.
export function overlaid(base, later) {
  if (!later.length) return base;
  const newest = later[0].report;
  if (isOld(base) || isOld(newest)) return base;
  const kept = Object.fromEntries(["open", "listed", "excuses", "interventions", "ages", "history", "clean_days", "press"].map((name) => [name, newest[name]]));
  const asked = later.flatMap(({ run }) => [...(run.conf?.keys ?? []), ...(run.conf?.excuse ?? [])]);
  const touched = (collection, verdict, key) => ["*", verdict, key].some((word) => asked.includes(lineOf(collection, word)));
  const again = new Map(newest.collections.map((c) => [c.collection, c]));
  const collections = base.collections.map((c) => {
    const samples = Object.fromEntries(Object.entries(c.samples).map(([verdict, shown]) => [verdict, [
      ...shown.filter((s) => !touched(c.collection, verdict, s.key)), ...(again.get(c.collection)?.samples[verdict] ?? []),
    ]]));
    return { ...c, samples };
  });
  const known = Object.fromEntries(newest.ready.checks.map((check) => [check.name, check]));
  const checks = base.ready.checks.map((check) => (["drift", "rejected", "clean", "derived"].includes(check.name) ? (known[check.name] ?? check) : check));
  const repeated = new Set(newest.alerts.map((a) => a.text));
  const alerts = [...base.alerts.filter((a) => !base.rules.drift.includes(a.kind) && !repeated.has(a.text)), ...newest.alerts];
  return { ...base, ...kept, collections, alerts, ready: { answer: checks.every((c) => c.ok), checks } };
}

// A link opens the form with values, and its author may not be the person who presses the button. Limits, with which a run
// could write more than usual, are left to that person.
const isLimit = (name) => name.startsWith("max_") || name === "liveness_minimum" || name === "write_ops_required";
export function fromLink(conf) {
  const left = Object.keys(conf).filter(isLimit);
  return { preset: Object.fromEntries(Object.entries(conf).filter(([name]) => !left.includes(name))), left };
}

// A run's outcome, in a sentence.
export function outcome(report) {
  if (!report) return "It ended without a report.";
  const wrote = { inserted: 0, updated: 0, deleted: 0 };
  const names = new Set();
  for (const c of report.collections ?? []) for (const done of Object.keys(wrote)) if (c[done]) { wrote[done] += c[done]; names.add(c.collection); }
  const parts = Object.entries(wrote).filter(([, n]) => n).map(([done, n]) => `${rows(n)} ${done}`);
  const stopped = report.problem && !report.verdict?.includes(report.problem) ? `${report.problem} ` : "";
  return `${stopped}${parts.length ? `${capital(parts.join(", "))} in ${[...names].join(", ")}. ` : ""}${report.verdict ?? ""}`;
}

const STEPS = { preflight: "preflight", compare: "compare", grace: "wait for the second look", look_again: "second look", repair: "repair", report: "report" };
const DONE = ["success", "skipped", "failed", "upstream_failed", "removed"];

// The steps of a run in progress, in their order: [{says, state}], state one of done, now, failed, skipped, ahead.
export function steps(tasks) {
  const of = (id) => tasks.filter((t) => t.task_id === id);
  const kind = (t) => (!t?.state ? "ahead" : t.state === "success" ? "done" : t.state === "skipped" ? "skipped" : ["failed", "upstream_failed"].includes(t.state) ? "failed" : "now");
  const all = Object.entries(STEPS).map(([id, says]) => ({ id, says, state: kind(of(id)[0]) }));
  const slices = of("sweep_slices").filter((t) => t.map_index >= 0);
  if (slices.length) {
    const done = slices.filter((t) => DONE.includes(t.state)).length;
    const state = done === slices.length ? "done" : slices.some((t) => t.state) ? "now" : "ahead";
    all.splice(1, 0, { id: "sweep_slices", says: `sweep, ${done} of ${slices.length} slices`, state });
  }
  return all;
}

// A key can be named in a conf only as the report shows it whole: not shortened, not escaped.
export const nameable = (key) => !key.endsWith("…") && !key.includes("\\u");

// Collections that were never compared whole.
export const neverSwept = (report) => report.declared.filter((name) => !report.ages[name]?.swept_at);

// The page's first sentence, and how it stands: good, bad, or unknown.
export function standing(report, run, about, now = Date.now()) {
  const open = findings(report).reduce((sum, f) => sum + f.number, 0);
  const lost = report.collections.filter((c) => c.not_examined).map((c) => c.collection);
  const old = (now - Date.parse(report.at)) / 1000 > LATE;
  if (open) return { tone: "bad", says: open === 1 ? "1 difference is open" : `${open.toLocaleString("en")} differences are open` };
  if (report.problem) return { tone: "bad", says: report.problem_kind === "dual_write_off" ? "Dual-write seems off" : "The last run was stopped" };
  if (lost.length) return { tone: "unknown", says: `Not proved: ${lost.length} of ${report.collections.length} collections were not examined` };
  if (report.alerts.length) return { tone: "unknown", says: "Nothing differs, but the last run failed" };
  if (neverSwept(report).length) return { tone: "unknown", says: "Nothing differs in what was compared so far" };
  if (about.is_paused) return { tone: "unknown", says: "The two databases agreed, but the DAG is paused" };
  if (old) return { tone: "unknown", says: "The two databases agreed when they were last compared" };
  return { tone: "good", says: "The two databases agree" };
}

// A report counts reasons as "verdict: reason".
const reasonOf = (text, number) => ({ verdict: text.slice(0, text.indexOf(": ")), reason: text.slice(text.indexOf(": ") + 2), number });

// Why a line of the open differences is open: each reason with its number. Reasons of rejections are those of the last look.
export const reasonsOf = (group, line) =>
  group.reasons.size ? [...group.reasons].map(([reason, number]) => ({ reason, number })) : (line?.reasons ?? []).filter((r) => r.verdict === group.verdict);

// Each collection in one line: the last run's counts, the differences open now, and how old the looks are.
export function lines(report, backfill) {
  const counted = new Map((backfill?.report.collections ?? []).filter((c) => c.source_count !== null || c.target_count !== null).map((c) => [c.collection, c]));
  const shown = new Map(report.collections.map((c) => [c.collection, c]));
  const names = [...new Set([...shown.keys(), ...Object.keys(report.ages)])];
  return names.map((name) => {
    const seen = shown.get(name) ?? null;
    const older = counted.get(name);
    const open = report.open.filter((line) => line.collection === name);
    const sum = (wanted) => open.filter(wanted).reduce((total, line) => total + line.number, 0);
    return {
      name,
      seen,
      documents: seen?.source_count ?? older?.source_count ?? null,
      rows: seen?.target_count ?? older?.target_count ?? null,
      counted: seen?.source_count != null ? report.at : (backfill?.run.end_date ?? null),
      examined: seen?.examined ?? null,
      notExamined: seen?.not_examined ?? null,
      columns: report.open_columns?.[name] ?? {},
      open: Object.fromEntries(report.rules.drift.map((v) => [v, sum((line) => !line.excused && line.verdict === v)])),
      excused: sum((line) => line.excused),
      inFlight: sum((line) => !line.excused && line.verdict === "in_flight"),
      explained: (seen?.counts.orphan ?? 0) + (seen?.counts.duplicate ?? 0),
      until: report.ages[name]?.examined_until ?? null,
      swept: report.ages[name]?.swept_at ?? null,
      reasons: Object.entries(seen?.reasons ?? {}).map(([text, n]) => reasonOf(text, n)), // the most frequent
      samples: Object.entries(seen?.samples ?? {}).flatMap(([verdict, shown]) => shown.map((s) => ({ verdict, ...s }))),
    };
  });
}

// The charts' points, oldest first: each run's numbers come from the report, its duration from Airflow.
export function history(report, runs) {
  const took = new Map(runs.map((r) => [r.dag_run_id, r.duration]));
  return [...report.history].reverse().map((h) => ({
    at: h.at,
    run: h.run_id,
    parts: { ...h, seconds: took.get(h.run_id) ?? 0 },
  }));
}

// In how many open stale rows each column differs: "title 12, content 3".
export const columnsOf = (columns) => Object.entries(columns ?? {}).map(([name, n]) => `${name} ${n.toLocaleString("en")}`).join(", ");

// --- one key over time -------------------------------------------------------------------------------------------------

// A key in a run's report and list: {at, run, row}, with row null if it isn't open; undefined if they don't show it.
export function stateIn(report, rows, run, collection, key) {
  const samples = (report.collections ?? []).filter((c) => c.collection === collection).flatMap((c) => Object.entries(c.samples).flatMap(([verdict, shown]) => shown.map((s) => ({ verdict, ...s }))));
  const row = rows?.find((r) => r.collection === collection && r.key === key) ?? null;
  const at = run.end_date ?? report.at; // the list is the run's last step
  if (row) return { at, run, row };
  if (rows && report.listed && report.listed.rows === report.listed.of) return { at, run, row: null };
  const sample = samples.find((s) => s.key === key && report.rules?.drift.includes(s.verdict));
  return sample ? { at, run, row: { ...sample, excused_by: sample.excused ? "somebody" : null } } : undefined;
}

const saysOf = (row) => [`${plain(row.verdict)}`, row.reason && plain(row.reason), row.cause && plain(row.cause), row.columns?.length > 0 && `differs in ${row.columns.join(", ")}`].filter(Boolean).join(", ");

// The changes in a key's states, which come newest first: found, another verdict, excused, gone.
export function foldedStates(states) {
  const events = [];
  let before;
  for (const { at, run, row } of [...states].reverse()) {
    const is = row ? saysOf(row) : null;
    const excused = row?.excused_by ?? null;
    if (is && is !== before?.is) events.push({ at: before === undefined && row.since ? row.since : at, run: before === undefined && row.since && row.since < at ? null : run, says: before?.is ? `now ${is}` : `found: ${is}` });
    if (is && excused && excused !== before?.excused) events.push({ at: row.excused_at ?? at, run, says: `excused by ${excused}${row.excuse_reason ? `: “${row.excuse_reason}”` : ""}` });
    if (is && !excused && before?.excused) events.push({ at, run, says: "no longer excused" });
    if (!is && before?.is) events.push({ at, run, says: "no longer open" });
    before = { is, excused };
  }
  return events;
}

// A person's requests about a key, from a run's conf: [says].
export function asksAbout(run, collection, key, states) {
  const conf = run.conf ?? {};
  const verdicts = new Set(states.map((s) => s.row?.verdict).filter(Boolean));
  const meant = (lines) => (lines ?? []).some((l) => l === lineOf(collection, key) || l === lineOf(collection, "*") || [...verdicts].some((v) => l === lineOf(collection, v)));
  const who = run.triggering_user_name ?? "somebody";
  const named = meant(conf.keys);
  return [
    named && (conf.repair && conf.repair !== "off" ? `${who} asked to repair it (${plain(conf.repair)})` : `${who} had it looked at`),
    meant(conf.excuse) && `${who} excused it${conf.excuse_reason ? `: “${conf.excuse_reason}”` : ""}`,
    meant(conf.unexcuse) && `${who} took the excuse back`,
  ].filter(Boolean);
}

// The writes in the journal, each with its run.
export function journalEvents(journal) {
  const past = { insert: "inserted", update: "updated", delete: "deleted" };
  return (journal?.written ?? []).map((w) => ({ at: w.at, run_id: w.run_id, says: `row ${past[w.action] ?? w.action}${w.undo ? ", to undo a write" : ""}${w.confirmed ? "" : ", not confirmed yet"}` }));
}

// The newest first, each once: a list and a person's conf may have the same excuse.
export function dedupe(events) {
  const seen = new Set();
  return [...events].sort((a, b) => Date.parse(b.at) - Date.parse(a.at)).filter((e) => {
    const id = `${e.says}|${e.run?.dag_run_id ?? e.run_id ?? e.at}`;
    return !seen.has(id) && seen.add(id);
  });
}
