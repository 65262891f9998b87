// The trigger form, prefilled: made of the DAG's own parameters. Airflow 3.3's form takes no values from a link.

import * as api from "./api.js";
import { el, runLink, say } from "./dom.js";
import { plain } from "./facts.js";

let fields = {};

// Opens the form of a DAG. `preset` are values that a button or a link chose; nothing is sent before Trigger is pressed.
export async function openForm(dagId, title, explanation, preset, onDone) {
  const dialog = el("dialog", { class: "form", "aria-labelledby": "form-title" });
  const close = () => dialog.close();
  const problem = el("p", { class: "problem", role: "alert" });
  const body = el("div", {}, el("p", { class: "quiet" }, "Loading the form…"));
  dialog.append(el("h2", { id: "form-title" }, title), el("p", {}, explanation), body, problem);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  try {
    const about = await api.details(dagId);
    body.replaceChildren(form(about, preset, { close, problem, onDone, dagId }));
    (body.querySelector("[data-empty]") ?? body.querySelector("button[type=submit]")).focus();
  } catch (error) {
    body.replaceChildren(el("button", { type: "button", onclick: close }, "Close"));
    problem.textContent = error.message;
  }
}

function form(about, preset, { close, problem, onDone, dagId }) {
  fields = {};
  const params = Object.entries(about.params ?? {});
  const chosen = params.filter(([name]) => name in preset);
  const others = params.filter(([name]) => !(name in preset));
  const unpause = el("input", { type: "checkbox", id: "unpause", checked: true });
  const preview = el("pre", { class: "conf" });
  const conf = () => {
    const values = Object.entries(fields).map(([name, field]) => [name, field.read()]);
    return Object.fromEntries(values.filter(([name, v]) => name in preset || !same(v, about.params[name].value)));
  };
  const show = () => (preview.textContent = JSON.stringify(conf(), null, 2));
  const submit = el("button", { type: "submit", class: "primary" }, "Trigger");
  const send = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.textContent = "";
    try {
      if (about.is_paused && unpause.checked) await api.unpause(dagId);
      const run = await api.trigger(dagId, conf());
      close();
      say(`Run ${run.dag_run_id} was triggered.`);
      onDone(run);
    } catch (error) {
      problem.textContent =
        error.status === 403 ? `You may view ${dagId}, but not trigger it. Ask for the right to run it.` : error.message;
      submit.disabled = false;
    }
  };
  const made = el(
    "form",
    { onsubmit: send, oninput: show, method: "dialog" },
    chosen.map(([name, param]) => field(name, param, preset[name])),
    el("details", {}, el("summary", {}, `${others.length} more parameters, at their defaults`),
      others.map(([name, param]) => field(name, param, param.value))),
    el("details", {}, el("summary", {}, "What is sent"), preview),
    about.is_paused && el("label", { class: "check" }, unpause, "The DAG is paused: unpause it (its schedule begins to run)"),
    el("p", { class: "buttons" }, submit, el("button", { type: "button", onclick: close }, "Cancel")),
  );
  // The browser can't point at a field that is folded away, and would refuse without a word.
  made.addEventListener("invalid", (event) => { const fold = event.target.closest("details"); if (fold) fold.open = true; }, true);
  show();
  return made;
}

const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);

function field(name, param, value) {
  const { schema, description } = param;
  const id = `field-${name}`;
  const title = schema.title ?? plain(name);
  const types = [schema.type ?? "string"].flat();
  const hint = description ?? plainMarkdown(schema.description_md);
  const help = hint && el("small", { id: `${id}-help`, class: "quiet" }, hint);
  const described = help ? `${id}-help` : undefined;
  if (types.includes("array") && schema.items?.enum) return checkboxes(name, title, schema.items.enum, value, help);
  if (types.includes("boolean")) {
    const box = el("input", { type: "checkbox", id, checked: Boolean(value), "aria-describedby": described });
    fields[name] = { read: () => box.checked };
    return el("div", { class: "field" }, el("label", { class: "check" }, box, title), help);
  }
  let input;
  if (schema.enum) {
    const shown = (option) => schema.values_display?.[option] ?? plain(option);
    input = el("select", { id, "aria-describedby": described }, schema.enum.map((o) => el("option", { value: o }, shown(o))));
    input.value = value;
    fields[name] = { read: () => input.value };
  } else if (types.includes("array")) {
    input = el("textarea", { id, rows: 2, "aria-describedby": described, value: (value ?? []).join("\n") });
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
  return el("div", { class: "field" }, el("label", { for: id }, title), input, help);
}

function checkboxes(name, title, options, value, help) {
  const boxes = options.map((option) => el("input", { type: "checkbox", value: option, checked: (value ?? []).includes(option) }));
  fields[name] = { read: () => boxes.filter((b) => b.checked).map((b) => b.value) };
  return el("fieldset", { class: "field" }, el("legend", {}, title), help,
    el("div", { class: "boxes" }, boxes.map((box, i) => el("label", { class: "check" }, box, options[i]))));
}

const plainMarkdown = (text) => text?.replace(/[*`]/g, "");

export const started = (run) => ["Run ", runLink(run.dag_id, run.dag_run_id), " was triggered."];
