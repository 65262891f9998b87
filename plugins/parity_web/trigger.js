// The trigger form, prefilled, and made from the DAG's own parameters. Airflow 3.3's form takes no values from a link.

import * as api from "./api.js";
import { code, el, named, number, say } from "./dom.js";
import { effect, plain, planned, plannedUndo } from "./facts.js";

let fields = {};

// Opens the form of reconcile_dual_writes. Nothing is sent before its button is pressed. `preset`: the values that a button
// or a link chose, shown first. `fixed`: values that this form is for, sent and not shown. `known`: the open differences, as
// the page knows them, for the preview. `unpause`: whether the box that unpauses a paused DAG is ticked.
export async function openForm(title, { preset = {}, fixed = {}, warns = null, known, may, unpause = false, onDone }) {
  const dialog = el("dialog", { class: "form", "aria-labelledby": "form-title" });
  const close = () => dialog.close();
  const body = el("div", {}, el("p", { class: "quiet" }, "Loading the form…"));
  const heading = el("h2", { id: "form-title", tabindex: "-1" }, title);
  dialog.append(heading, ...(warns ? [el("p", { class: "problem" }, warns)] : []), body);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  try {
    const about = await api.details(api.RECONCILE);
    body.replaceChildren(form(about, preset, fixed, { close, known, may, unpause, onDone }));
    (body.querySelector("[data-empty]") ?? heading).focus(); // never the button: one key would do it
  } catch (error) {
    body.replaceChildren(el("p", { class: "problem", role: "alert" }, error.message), el("button", { type: "button", onclick: close }, "Close"));
  }
}

const REPAIRING = ["repair", "max_repairs", "max_share", "max_proof_reads", "keys", "undo", "excuse", "excuse_reason", "unexcuse"];

function form(about, preset, fixed, { close, known, may, unpause, onDone }) {
  fields = {};
  const params = Object.entries(about.params ?? {}).filter(([name]) => name in preset || !(name in fixed || (fixed.repair === "off" && (fixed.scope === "none" || REPAIRING.includes(name)))));
  const chosen = params.filter(([name]) => name in preset);
  const others = params.filter(([name]) => !(name in preset));
  const box = el("input", { type: "checkbox", id: "unpause", checked: unpause });
  const preview = el("pre", { class: "conf" });
  const sentence = el("p", { class: "effect", role: "status" });
  const writes = el("div", { class: "plan" });
  const typed = el("input", { type: "text", id: "typed", autocomplete: "off", pattern: "delete", title: "delete" });
  const confirm = el("div", { class: "field", hidden: true }, el("label", { for: "typed" }, "Type ", el("code", {}, "delete"), " to confirm"), typed);
  const problem = el("p", { class: "problem", role: "alert" });
  const submit = el("button", { type: "submit", class: "primary" }, "Look now");
  const values = () => ({ ...Object.fromEntries(Object.entries(about.params ?? {}).map(([name, p]) => [name, p.value])), ...fixed, ...read() });
  const read = () => Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.read()]));
  const conf = () => {
    const said = Object.entries(read()).filter(([name, v]) => name in preset || !same(v, about.params[name].value));
    return { ...fixed, ...Object.fromEntries(said) };
  };
  const show = () => {
    const now = values();
    const declared = about.params?.collections?.value ?? [];
    const plan = now.undo ? plannedUndo(known.interventions?.find((i) => i.run_id === now.undo), now.collections ?? declared) : planned(now.repair, now.collections ?? declared, known, now.keys ?? []);
    const { says, verb, deletes } = effect(now, declared, plan, known.rules?.drift ?? []);
    sentence.textContent = about.is_paused && !box.checked ? `${says} The DAG is paused: the run waits until somebody unpauses it.` : says;
    sentence.classList.toggle("danger", deletes);
    submit.textContent = verb;
    submit.className = deletes ? "danger" : "primary";
    confirm.hidden = !deletes;
    typed.required = deletes;
    writes.replaceChildren(...planTable(plan, now.undo ? "At most" : (known?.asOf ?? "Open now")));
    preview.textContent = JSON.stringify(conf(), null, 2);
  };
  const send = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.textContent = "";
    try {
      if (about.is_paused && box.checked) await api.unpause(api.RECONCILE);
      const run = await api.trigger(api.RECONCILE, conf());
      close();
      say("The run was triggered.");
      onDone(run);
    } catch (error) {
      refused(made, problem, error);
      submit.disabled = false;
    }
  };
  const made = el(
    "form",
    { onsubmit: send, oninput: show, method: "dialog" },
    chosen.map(([name, param]) => field(name, param, preset[name])),
    bySection(others).map(([section, inside]) => el("details", {}, el("summary", {}, `${section} (${inside.length})`), inside.map(([name, param]) => field(name, param, param.value)))),
    el("details", {}, el("summary", {}, "What is sent"), preview),
    writes,
    about.is_paused && may.unpause && el("label", { class: "check" }, box, "The DAG is paused: unpause it (its schedule begins to run)"),
    el("div", { class: "foot" }, sentence, confirm, problem,
      el("p", { class: "buttons" }, submit, el("button", { type: "button", onclick: close }, "Cancel"))),
  );
  // The browser can't point at a field that is folded away, and would refuse without a word.
  made.addEventListener("invalid", (event) => unfold(event.target), true);
  show();
  return made;
}

const unfold = (field) => { const fold = field.closest("details"); if (fold) fold.open = true; };

// Shows Airflow's refusal: at the field that it names, in words; else above the buttons.
function refused(made, problem, error) {
  const [, name] = /^Invalid input for param (\w+)/.exec(error.message) ?? [];
  const input = name && made.querySelector(`#field-${name}`);
  if (error.status === 403) problem.textContent = `You may view ${api.RECONCILE}, but not trigger it. Ask for the right to run it.`;
  else if (!input) problem.textContent = error.message;
  else {
    const hint = made.querySelector(`#field-${name}-help`)?.textContent ?? "";
    problem.textContent = `${name} is not as it must be. ${hint}`;
    unfold(input);
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }
  problem.scrollIntoView?.({ block: "nearest" });
}

// The rows that would be written, with the keys that the report shows.
function planTable(plan, caption) {
  if (!plan.length) return [];
  const lines = plan.map((p) => el("tr", {}, el("th", { scope: "row" }, p.collection), el("td", {}, el("span", { class: `chip ${p.action}` }, p.action)), el("td", { class: "figure" }, number(p.number))));
  const keys = plan.filter((p) => p.keys.length).map((p) =>
    el("li", {}, `${p.collection}, ${p.action}: `, p.keys.flatMap((key, i) => [i > 0 && ", ", code(key)]), p.number > p.keys.length && ` and ${number(p.number - p.keys.length)} more`));
  return [
    el("table", { class: "narrow" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, ["Collection", "Action", "Rows"].map((h) => el("th", { scope: "col", class: h === "Rows" && "figure" }, h)))), el("tbody", {}, lines)),
    keys.length > 0 && el("details", { open: plan.some((p) => p.action === "delete") }, el("summary", {}, "Their keys"), el("ul", {}, keys)),
  ].filter(Boolean);
}

// Params of one section together, as Airflow's own form has them.
function bySection(params) {
  const sections = new Map();
  for (const [name, param] of params) {
    const section = param.schema.section ?? "More";
    sections.set(section, [...(sections.get(section) ?? []), [name, param]]);
  }
  return [...sections];
}

const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);

function field(name, param, value) {
  const { schema, description } = param;
  const id = `field-${name}`;
  const title = titled(schema.title ?? plain(name), name);
  const types = [schema.type ?? "string"].flat();
  const hint = plainMarkdown(description ?? schema.description_md);
  const help = hint && el("small", { id: `${id}-help`, class: "quiet" }, hint);
  const described = help ? `${id}-help` : undefined;
  if (types.includes("array") && schema.items?.enum) return checkboxes(name, title, schema.items.enum, value, help);
  if (types.includes("boolean")) {
    const box = el("input", { type: "checkbox", id, checked: Boolean(value), "aria-describedby": described });
    fields[name] = { read: () => box.checked };
    return el("div", { class: "field" }, el("label", { class: "check" }, box, title), help);
  }
  let input;
  let meaning = null;
  if (schema.enum) {
    // A select cuts long text off, so an option is only its name; its meaning stands below.
    const [short, long] = [0, 1].map((i) => (option) => (schema.values_display?.[option] ?? plain(option)).split(/: (.*)/s)[i] ?? "");
    meaning = el("small", { id: `${id}-meaning` });
    const explain = () => (meaning.textContent = long(input.value));
    input = el("select", { id, onchange: explain, oninput: explain, "aria-describedby": [`${id}-meaning`, described].filter(Boolean).join(" ") }, schema.enum.map((o) => el("option", { value: o }, short(o))));
    input.value = value;
    explain();
    fields[name] = { read: () => input.value };
  } else if (types.includes("array")) {
    const lines = value ?? [];
    input = el("textarea", { id, rows: Math.max(2, lines.length), "aria-describedby": described, value: lines.join("\n") });
    fields[name] = { read: () => input.value.split("\n").map((l) => l.trim()).filter(Boolean) };
  } else if (types.includes("integer") || types.includes("number")) {
    const step = types.includes("integer") ? 1 : "any";
    const required = !types.includes("null");
    input = el("input", { type: "number", id, min: schema.minimum, max: schema.maximum, step, required, "aria-describedby": described, value: value ?? "" });
    fields[name] = { read: () => (input.value === "" ? null : Number(input.value)) };
  } else {
    const empty = value === ""; // a preset that a person is to fill in
    input = el("input", { type: "text", id, required: empty, "data-empty": empty, "aria-describedby": described, value: value ?? "" });
    fields[name] = { read: () => input.value || null };
  }
  return el("div", { class: "field" }, el("label", { for: id }, title), input, meaning, help);
}

// Docs, alerts and Variables name a param by its name.
const titled = (title, name) => (plain(name) === title.toLowerCase() ? [title] : [title, " ", el("small", { class: "quiet name" }, name)]);

function checkboxes(name, title, options, value, help) {
  const boxes = options.map((option) => el("input", { type: "checkbox", value: option, checked: (value ?? []).includes(option) }));
  fields[name] = { read: () => boxes.filter((b) => b.checked).map((b) => b.value) };
  return el("fieldset", { class: "field" }, el("legend", {}, title), help,
    el("div", { class: "boxes" }, boxes.map((box, i) => el("label", { class: "check" }, box, options[i]))));
}

const plainMarkdown = (text) => text?.replace(/[*`]/g, "");

export const started = (run) => ["Asked for: ", named(run), ". Its outcome is shown here when it has ended."];
