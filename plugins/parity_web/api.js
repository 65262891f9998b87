// The page's data: from Airflow's REST API, with the viewer's session.

import { named, PREFIX, prefixesOf } from "./bundles.js";
import { overlaid } from "./facts.js";

export const RECONCILE = named("reconcile_dual_writes");
export const BACKFILL = named("backfill_gap");
export const MIGRATIONS = named("apply_migrations");
export const HOME = `plugin/parity${PREFIX ? `?prefix=${PREFIX}` : ""}`; // in Airflow's window
export const SWITCH = named("dual_write_enabled");
export const OURS = [RECONCILE, BACKFILL, MIGRATIONS];

const RUNS = 200;
const PAGE = 100; // Airflow's maximum

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function call(method, path, body, base = "../api/v2/") {
  let answer;
  try {
    answer = await fetch(new URL(`${base}${path}`, document.baseURI), {
      method,
      credentials: "same-origin",
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch {
    throw new ApiError(0, "Airflow doesn't answer.");
  }
  const json = await answer.json().catch(() => null);
  if (answer.ok) return json;
  const detail = json?.detail;
  throw new ApiError(answer.status, typeof detail === "string" ? detail : JSON.stringify(detail ?? answer.statusText));
}

const at = (dagId, ...rest) => ["dags", dagId, ...rest].map(encodeURIComponent).join("/");

export const dag = (dagId) => call("GET", at(dagId));
export const details = (dagId) => call("GET", `${at(dagId)}/details`);
export const run = (dagId, runId) => call("GET", at(dagId, "dagRuns", runId));
export const pause = (dagId, paused) => call("PATCH", at(dagId), { is_paused: paused });
export const unpause = (dagId) => pause(dagId, false);
export const trigger = (dagId, conf) => call("POST", at(dagId, "dagRuns"), { logical_date: null, conf });

// This viewer's rights. If they are unknown (an older plugin), the buttons are shown, and Airflow refuses.
export const may = () => call("GET", PREFIX ? `may?prefix=${PREFIX}` : "may", undefined, "./").catch(() => ({ trigger: true, unpause: true, switch: false }));

// The prefixes of all bundles in this Airflow that the viewer may see.
export async function bundles() {
  return prefixesOf((await call("GET", "dags?dag_id_pattern=%25reconcile_dual_writes&limit=100")).dags.map((listed) => listed.dag_id));
}

// The states of a run's tasks; a mapped task has several instances.
export async function tasks(dagId, runId) {
  return (await call("GET", `${at(dagId, "dagRuns", runId, "taskInstances")}?limit=200`)).task_instances;
}

const xcom = async (dagId, runId, taskId, key) => {
  const { value } = await call("GET", at(dagId, "dagRuns", runId, "taskInstances", taskId, "xcomEntries", key));
  return typeof value === "string" && /^[[{"]/.test(value) ? JSON.parse(value) : value;
};

// The progress of a run: its tasks, and the time of its second look while it waits for that.
async function progress(run) {
  if (!run) return null;
  const instances = await tasks(RECONCILE, run.dag_run_id).catch(() => []);
  const waits = instances.some((t) => t.task_id === "grace" && t.state === "up_for_reschedule");
  const until = waits ? await xcom(RECONCILE, run.dag_run_id, "grace", "until").catch(() => null) : null;
  return { tasks: instances, until };
}

// A DAG's last runs, the newest first.
export async function runs(dagId, wanted = RUNS) {
  const limit = Math.min(wanted, PAGE);
  const ask = (offset) => call("GET", `${at(dagId, "dagRuns")}?order_by=-run_after&limit=${limit}&offset=${offset}`);
  const pages = await Promise.all(Array.from({ length: Math.ceil(wanted / limit) }, (_, i) => ask(i * limit)));
  return pages.flatMap((page) => page.dag_runs);
}

// The report of a run; null if it has none (its preflight failed, or it still runs).
export async function report(dagId, runId) {
  try {
    return await xcom(dagId, runId, "report", "return_value");
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// All open differences that a run listed, page by page: [{collection, key, verdict, ...}].
export async function openList(dagId, runId, pages) {
  const listed = await Promise.all(Array.from({ length: pages }, (_, i) => xcom(dagId, runId, "report", `open_${i}`)));
  return listed.flatMap(({ names, rows }) => rows.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i]]))));
}

export const ended = (r) => r.state === "success" || r.state === "failed";

// The newest whole report among the last runs, with its run; and the sentence that the newest run left instead, if it did.
// A run that compared nothing has only changed which differences are open.
export async function newest(dagId, among) {
  let stopped = null;
  const later = [];
  for (const candidate of among.filter(ended).slice(0, 10)) {
    const made = await report(dagId, candidate.dag_run_id);
    if (made?.stopped) stopped ??= made.stopped;
    else if (dagId === RECONCILE && made?.compares === false) later.push({ run: candidate, report: made });
    else if (made) return { run: candidate, report: overlaid(made, later), stopped, since: later[0]?.run, lister: later[0]?.run ?? candidate };
  }
  if (later.length) return { ...later[0], stopped };
  return stopped && { run: among.find(ended), report: null, stopped };
}

// The journal's part that a run with named keys left: [{collection, key, open, written}]; empty if it left none.
export const histories = (runId) => xcom(RECONCILE, runId, "report", "histories").catch(() => []);

// A Variable's text; null if there is none, undefined if the viewer may not see it.
export const variable = (name) =>
  call("GET", `variables/${encodeURIComponent(name)}`).then((answer) => answer.value, (error) => {
    if (error.status === 404) return null;
    if (error.status === 403) return undefined;
    throw error;
  });

// Sets a Variable, whether there is one or not; another person may make or delete it at the same moment.
export async function setVariable(key, value, description) {
  const body = { key, value, description };
  const change = () => call("PATCH", `variables/${encodeURIComponent(key)}?update_mask=value&update_mask=description`, body);
  try {
    return await change();
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  try {
    return await call("POST", "variables", body);
  } catch (error) {
    if (error.status !== 409) throw error;
    return change();
  }
}

const VARIABLE_EVENTS = ["patch_variable", "post_variable", "delete_variable", "bulk_variables"];

// A Variable's changes in Airflow's audit log, the newest first; null if the viewer may not read it.
async function changes(name) {
  const asked = VARIABLE_EVENTS.map((event) => `included_events=${event}`).join("&");
  const logged = await call("GET", `eventLogs?${asked}&order_by=-when&limit=100`).catch(() => null);
  return logged && logged.event_logs.filter((e) => e.extra?.includes(`"${name}"`));
}

let kept = null; // the log is long, and asked for every few seconds while a run runs

export async function switchOf(may) {
  const value = may.switch ? await variable(SWITCH) : undefined;
  if (!kept || kept.value !== value || Date.now() - kept.at > 60_000) kept = { value, at: Date.now(), log: await changes(SWITCH) };
  return { value, log: kept.log };
}

export async function pendingApprovals() {
  const asked = await call("GET", `${at(BACKFILL, "dagRuns", "~")}/hitlDetails?response_received=false&limit=10`);
  return asked.hitl_details.map((d) => d.task_instance).filter((t) => t.state === "awaiting_input");
}

export async function overview(allowed) {
  const [about, reconciled, backfilled, migrated] = await Promise.all([
    dag(RECONCILE), runs(RECONCILE), runs(BACKFILL, 20), runs(MIGRATIONS, 20),
  ]);
  const waiting = reconciled.filter((r) => !ended(r));
  const running = waiting.find((r) => r.state === "running") ?? waiting.at(-1);
  const [latest, backfill, migrations, approvals, progressed, enabled] = await Promise.all([
    newest(RECONCILE, reconciled), newest(BACKFILL, backfilled), newest(MIGRATIONS, migrated),
    pendingApprovals().catch(() => []), progress(running), switchOf(allowed),
  ]);
  const whole = (candidate) => (candidate?.report ? candidate : null);
  return {
    dag: about, runs: reconciled, latest: whole(latest), stopped: latest?.stopped ?? null, backfill: whole(backfill),
    migrations: whole(migrations), approvals, running, queued: waiting.filter((r) => r !== running), progress: progressed, enabled,
  };
}
