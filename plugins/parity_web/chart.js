// Bar charts of the last runs, oldest left, and one control that selects a run: by pointer, touch and keyboard. SVG attributes
// only: the policy forbids inline styles.

import { ago, count, el, number, runLink, say, svg, when } from "./dom.js";

const HEIGHT = 56;
const WIDTH = 400;
const FEWEST = 24; // bars that fill the width: fewer stand at its right end, which is now

let chosen = null; // the selected run: kept over a refresh

// `points`: [{at, run, parts: {series: value}}], oldest first. `charts`: [{title, series, format}].
export function trend(points, charts, dagId) {
  if (!points.length) return el("p", { class: "quiet" }, "No runs yet.");
  const drawn = charts.map((c) => chart(points, c));
  const told = el("p", { class: "told", "aria-hidden": "true" });
  const range = el("input", { type: "range", min: 0, max: points.length - 1, step: 1, class: "cursor", "aria-label": "Run, the oldest first" });
  const at = Math.max(0, points.findIndex((p) => p.run === chosen));
  const select = (i) => {
    const point = points[i];
    chosen = i === points.length - 1 ? null : point.run;
    range.value = i;
    const said = drawn.map(({ title, select: mark }) => `${title}: ${mark(i)}`);
    range.setAttribute("aria-valuetext", `${when(point.at)}. ${said.join(". ")}`);
    told.textContent = when(point.at);
    open.href = runLink(dagId, point.run).href;
  };
  const open = runLink(dagId, points.at(-1).run, "Open this run");
  for (const { plot } of drawn) {
    const follow = (event) => {
      const box = plot.getBoundingClientRect();
      const slots = Math.max(points.length, FEWEST);
      const i = Math.floor(((event.clientX - box.left) / box.width) * slots) - (slots - points.length);
      if (i >= 0 && i < points.length) select(i);
    };
    plot.addEventListener("pointerdown", follow);
    plot.addEventListener("pointermove", (event) => (event.pointerType === "mouse" || event.buttons) && follow(event));
  }
  range.addEventListener("input", () => select(Number(range.value)));
  select(chosen === null ? points.length - 1 : at);
  return el("div", {}, drawn.map((d) => d.figure),
    el("p", { class: "axis quiet" }, ago(points[0].at), ago(points.at(-1).at)),
    range, el("p", { class: "axis" }, told, open));
}

function chart(points, { title, series, format = number }) {
  const total = (p) => series.reduce((sum, name) => sum + (p.parts[name] ?? 0), 0);
  const most = Math.max(1, ...points.map(total));
  const slots = Math.max(points.length, FEWEST);
  const width = WIDTH / slots;
  const left = (i) => (slots - points.length + i) * width;
  const mark = svg("rect", { class: "at", x: 0, y: 0, width, height: HEIGHT });
  const bars = points.map((point, i) => {
    let top = HEIGHT;
    const group = svg("g", {});
    for (const name of series) {
      const value = point.parts[name] ?? 0;
      if (!value) continue;
      const height = Math.max(2, (value / most) * (HEIGHT - 2));
      top -= height;
      group.append(svg("rect", { class: `bar ${name}`, x: left(i), y: Math.max(0, top), width: width * 0.8, height }));
    }
    return group;
  });
  const label = `${title}: ${format(total(points.at(-1)))} in the last of ${count(points.length, "run")}, at most ${format(most)}`;
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, mark, ...bars);
  const value = el("strong", {});
  const figure = el("figure", { class: "chart" },
    el("figcaption", {}, el("span", {}, title), value),
    el("div", { class: "plot" }, el("div", { class: "scale quiet", "aria-hidden": "true" }, el("span", {}, points.some(total) && format(most)), el("span", {}, "0")), plot));
  const select = (i) => {
    mark.setAttribute("x", String(left(i)));
    return (value.textContent = format(total(points[i])));
  };
  return { title, figure, plot, select };
}
