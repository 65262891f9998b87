// Pure: what a report says, in the page's terms. No network, no document.

export const DRIFT = ["missing", "stale", "extra", "rejected"];
const REPAIRS = ["off", "missing", "missing_and_stale", "all"];
const REPAIR_OF = { missing: "missing", stale: "missing_and_stale", extra: "all" };
const HELD = "unique_key_held_by_extra_row"; // the row that holds the key must go first
const LATE = 45 * 60; // seconds: three scheduled runs

export const plain = (word) => String(word).replaceAll("_", " ");

// Open differences by collection and verdict, the excused apart.
export function findings(report) {
  const groups = new Map();
  for (const line of report.open ?? []) {
    if (line.excused || !DRIFT.includes(line.verdict)) continue;
    if (line.cause === "dual_write_off" && !report.dual_write_enabled) continue;
    const key = JSON.stringify([line.collection, line.verdict]);
    const group = groups.get(key) ?? { collection: line.collection, verdict: line.verdict, number: 0, since: line.since, causes: {}, reasons: new Set(), alert: null };
    group.number += line.number;
    group.since = line.since < group.since ? line.since : group.since;
    if (line.reason) group.reasons.add(line.reason);
    group.causes[line.cause] = (group.causes[line.cause] ?? 0) + line.number;
    groups.set(key, group);
  }
  for (const group of groups.values())
    group.alert = (report.alerts ?? []).find((text) => text.startsWith(`${group.collection}: `) && text.includes(` ${group.verdict} since `)) ?? null;
  return [...groups.values()].sort((a, b) => (a.since < b.since ? -1 : 1));
}

// The conf that repairs findings. A deleted row may have dependents in other collections: then all are repaired.
export function repairOf(found) {
  const repairable = found.filter((f) => REPAIR_OF[f.verdict]);
  if (!repairable.length) return null;
  const needed = (f) => REPAIRS.indexOf(f.reasons.has(HELD) ? "all" : REPAIR_OF[f.verdict]);
  const repair = REPAIRS[Math.max(...repairable.map(needed))];
  return repair === "all" ? { repair } : { repair, collections: [...new Set(repairable.map((f) => f.collection))] };
}

export const excuseOf = (collection, key = "*") => ({ excuse: [`${collection}:${key}`], excuse_reason: "" });
export const unexcuseOf = (collection, key) => ({ unexcuse: [`${collection}:${key}`] });
export const sweepOf = (collection) => ({ scope: "sweep", collections: [collection] });

// A key can be named in a conf only as the report shows it whole: not shortened, not escaped.
export const nameable = (key) => !key.endsWith("…") && !key.includes("\\u");

// Collections of which nobody knows anything yet: never compared whole.
export const neverSwept = (report) => (report.declared ?? Object.keys(report.ages ?? {})).filter((name) => !report.ages?.[name]?.swept_at);

// The page's first sentence, and how it stands: good, bad, or unknown.
export function standing(report, run, about, now = Date.now()) {
  const found = findings(report);
  const open = found.reduce((sum, f) => sum + f.number, 0);
  const lost = report.collections.filter((c) => c.not_examined).map((c) => c.collection);
  const old = (now - Date.parse(report.at)) / 1000 > LATE;
  if (open) return { tone: "bad", says: open === 1 ? "1 difference is open" : `${open.toLocaleString("en")} differences are open` };
  if (report.problem) return { tone: "bad", says: report.problem_kind === "dual_write_off" ? "Dual-write seems off" : "The last run was stopped" };
  if (lost.length) return { tone: "unknown", says: `Not proved: ${lost.length} of ${report.collections.length} collections were not examined` };
  if (report.alerts?.length) return { tone: "unknown", says: "Nothing differs, but the last run failed" };
  if (neverSwept(report).length) return { tone: "unknown", says: "Nothing differs in what was compared so far" };
  if (about.is_paused) return { tone: "unknown", says: "The two databases agreed, but the DAG is paused" };
  if (old) return { tone: "unknown", says: "The two databases agreed when they were last compared" };
  return { tone: "good", says: "The two databases agree" };
}

// Each collection in one line: what the last run saw, what is open now, and how old the looks are.
export function lines(report, backfill) {
  const counted = new Map((backfill?.report.collections ?? []).filter((c) => c.source_count !== null || c.target_count !== null).map((c) => [c.collection, c]));
  const shown = new Map(report.collections.map((c) => [c.collection, c]));
  const names = [...new Set([...shown.keys(), ...Object.keys(report.ages ?? {})])];
  return names.map((name) => {
    const seen = shown.get(name) ?? null;
    const older = counted.get(name);
    const open = (report.open ?? []).filter((line) => line.collection === name);
    const sum = (wanted) => open.filter(wanted).reduce((total, line) => total + line.number, 0);
    return {
      name,
      seen,
      documents: seen?.source_count ?? older?.source_count ?? null,
      rows: seen?.target_count ?? older?.target_count ?? null,
      counted: seen?.source_count != null ? report.at : (backfill?.run.end_date ?? null),
      examined: seen?.examined ?? null,
      notExamined: seen?.not_examined ?? null,
      open: Object.fromEntries(DRIFT.map((v) => [v, sum((line) => !line.excused && line.verdict === v)])),
      excused: sum((line) => line.excused),
      inFlight: sum((line) => !line.excused && line.verdict === "in_flight"),
      explained: (seen?.counts.orphan ?? 0) + (seen?.counts.duplicate ?? 0),
      until: report.ages?.[name]?.examined_until ?? null,
      swept: report.ages?.[name]?.swept_at ?? null,
      samples: Object.entries(seen?.samples ?? {}).flatMap(([verdict, found]) => found.map((s) => ({ verdict, ...s }))),
    };
  });
}

// The charts' points, oldest first: what each run found comes from the report, how long it took from Airflow.
export function history(report, runs) {
  const took = new Map(runs.map((r) => [r.dag_run_id, r.duration]));
  return [...(report.history ?? [])].reverse().map((h) => ({
    at: h.at,
    run: h.run_id,
    parts: { ...h, seconds: took.get(h.run_id) ?? 0 },
  }));
}
