// Small bar charts of the last runs, oldest left. SVG attributes only: the policy forbids inline styles.

import { ago, count, el, number, svg, when } from "./dom.js";

const HEIGHT = 56;
const WIDTH = 400;

// `points`: [{at, run, parts: {series: value}}], oldest first. `unit` names what is counted, for a screen reader.
export function chart(title, points, series, format = number) {
  const total = (p) => series.reduce((sum, name) => sum + (p.parts[name] ?? 0), 0);
  const most = Math.max(1, ...points.map(total));
  const last = points.at(-1);
  const width = WIDTH / Math.max(points.length, 30);
  const bars = points.map((point, i) => {
    let top = HEIGHT;
    const group = svg("g", {}, svg("title", {}, `${when(point.at)}: ${format(total(point))}`));
    group.append(svg("rect", { class: "ground", x: i * width, y: 0, width, height: HEIGHT }));
    for (const name of series) {
      const value = point.parts[name] ?? 0;
      if (!value) continue;
      const height = Math.max(2, (value / most) * (HEIGHT - 2));
      top -= height;
      group.append(svg("rect", { class: `bar ${name}`, x: i * width, y: Math.max(0, top), width: width * 0.8, height }));
    }
    return group;
  });
  const label = last ? `${title}: ${format(total(last))} in the last of ${count(points.length, "run")}, at most ${format(most)}` : title;
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("span", {}, title), el("strong", {}, last ? format(total(last)) : "–")),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...bars),
    el("p", { class: "axis quiet" }, points.length ? [ago(points[0].at), el("span", {}, `at most ${format(most)}`)] : "no runs yet"),
  );
}
