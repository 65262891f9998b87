// What the page knows comes from Airflow's REST API with the viewer's session.

export const RECONCILE = "reconcile_dual_writes";
export const BACKFILL = "backfill_gap";
export const MIGRATIONS = "apply_migrations";
export const OURS = [RECONCILE, BACKFILL, MIGRATIONS];

const RUNS = 200;
const PAGE = 100; // Airflow's maximum

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(new URL(`../api/v2/${path}`, document.baseURI), {
      method,
      credentials: "same-origin",
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch {
    throw new ApiError(0, "Airflow doesn't answer.");
  }
  const found = await answer.json().catch(() => null);
  if (answer.ok) return found;
  const detail = found?.detail;
  throw new ApiError(answer.status, typeof detail === "string" ? detail : JSON.stringify(detail ?? answer.statusText));
}

const at = (dagId, ...rest) => ["dags", dagId, ...rest].map(encodeURIComponent).join("/");

export const dag = (dagId) => call("GET", at(dagId));
export const details = (dagId) => call("GET", `${at(dagId)}/details`);
export const run = (dagId, runId) => call("GET", at(dagId, "dagRuns", runId));
export const unpause = (dagId) => call("PATCH", at(dagId), { is_paused: false });
export const trigger = (dagId, conf) => call("POST", at(dagId, "dagRuns"), { logical_date: null, conf });

// Newest first.
export async function runs(dagId, wanted = RUNS) {
  const limit = Math.min(wanted, PAGE);
  const ask = (offset) => call("GET", `${at(dagId, "dagRuns")}?order_by=-run_after&limit=${limit}&offset=${offset}`);
  const pages = await Promise.all(Array.from({ length: Math.ceil(wanted / limit) }, (_, i) => ask(i * limit)));
  return pages.flatMap((page) => page.dag_runs);
}

// The report of a run; null where it has none (its preflight failed, or it still runs).
export async function report(dagId, runId) {
  try {
    const found = await call("GET", at(dagId, "dagRuns", runId, "taskInstances", "report", "xcomEntries", "return_value"));
    return typeof found.value === "string" ? JSON.parse(found.value) : found.value;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

const ended = (r) => r.state === "success" || r.state === "failed";

// The newest report among the last runs, with its run.
export async function newest(dagId, among) {
  for (const candidate of among.filter(ended).slice(0, 10)) {
    const found = await report(dagId, candidate.dag_run_id);
    if (found) return { run: candidate, report: found };
  }
  return null;
}

export async function pendingApprovals() {
  const found = await call("GET", `${at(BACKFILL, "dagRuns", "~")}/hitlDetails?response_received=false&limit=10`);
  return found.hitl_details.map((d) => d.task_instance).filter((t) => t.state === "awaiting_input");
}

export async function overview() {
  const [about, reconciled, backfilled, migrated] = await Promise.all([
    dag(RECONCILE), runs(RECONCILE), runs(BACKFILL, 20), runs(MIGRATIONS, 20),
  ]);
  const [latest, backfill, migrations, approvals] = await Promise.all([
    newest(RECONCILE, reconciled), newest(BACKFILL, backfilled), newest(MIGRATIONS, migrated),
    pendingApprovals().catch(() => []),
  ]);
  return { dag: about, runs: reconciled, latest, backfill, migrations, approvals, running: reconciled.find((r) => !ended(r)) };
}
