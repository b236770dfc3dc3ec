/** The last hour as small plots, each with a table that says the same. */

import { byId, el, fill, say, set, svg } from "./dom.js";
import { minute, short, span } from "./format.js";

const HEIGHT = 132;
const LEFT = 44;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 20;
const MINUTE_MS = 60_000;
const SPANS = [10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400];
const NOT_KNOWN = "–";

/**
 * @typedef {Object} Series
 * @property {string} name
 * @property {string} column
 * @property {"bar"|"line"} kind bars stand on each other
 * @property {string} look a class
 */
const PLOTS = [
  {
    title: "Finished a minute",
    format: short,
    whole: true,
    series: [
      { name: "completed", column: "completed", kind: "bar", look: "one" },
      { name: "failed", column: "failed", kind: "bar", look: "bad" },
    ],
  },
  {
    title: "Jobs that wait",
    format: short,
    whole: true,
    series: [{ name: "pending", column: "pending", kind: "line", look: "one area" }],
  },
  {
    title: "Wait until the start",
    format: span,
    series: [
      { name: "mean", column: "wait_seconds", kind: "line", look: "one" },
      { name: "95 of 100 at most", column: "wait_p95_seconds", kind: "line", look: "two" },
    ],
  },
  {
    title: "Inference",
    format: span,
    series: [
      { name: "mean", column: "inference_seconds", kind: "line", look: "one" },
      { name: "95 of 100 at most", column: "inference_p95_seconds", kind: "line", look: "two" },
    ],
  },
  {
    title: "Age of the oldest that waits",
    format: span,
    series: [{ name: "age", column: "oldest_pending_seconds", kind: "line", look: "one area" }],
  },
  {
    title: "Attempts that were repeated",
    format: short,
    whole: true,
    series: [{ name: "retried", column: "retried", kind: "bar", look: "two" }],
  },
];

export class Plots {
  #history = null;

  constructor() {
    this.card = byId("history");
    this.select = byId("history-model");
    this.plots = PLOTS.map((spec) => new Plot(spec));
    fill(byId("plots"), this.plots.map((plot) => plot.node));
    this.select.addEventListener("change", () => this.#draw());
  }

  show(history) {
    this.#history = history;
    this.card.hidden = false;
    const names = history.models.map((each) => each.model ?? "");
    if ([...this.select.options].map((option) => option.value).join("\n") !== names.join("\n")) {
      const chosen = this.select.value;
      fill(this.select, names.map((name) => el("option", { value: name, selected: name === chosen }, name || "all")));
    }
    byId("history-model-field").hidden = names.length < 3;
    this.#draw();
  }

  hide() {
    this.#history = null;
    this.card.hidden = true;
  }

  #draw() {
    const { models, first_minute: first } = this.#history;
    const shown = models.find((each) => (each.model ?? "") === this.select.value) ?? models[0];
    const isEmpty = PLOTS.every(({ series }) => series.every(({ column }) => shown[column].every((value) => !value)));
    byId("plots").hidden = isEmpty;
    byId("no-plots").hidden = !isEmpty;
    for (const plot of this.plots) plot.show(Date.parse(first), shown);
  }
}

class Plot {
  #first = 0;
  #values = [];
  #width = 0;

  constructor(spec) {
    this.spec = spec;
    this.said = el("span", { class: "plot-now" });
    this.picture = svg("svg", { role: "img", height: HEIGHT });
    this.tip = el("p", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.body = el("tbody");
    const heads = ["Minute", ...spec.series.map((each) => each.name)].map((name) => el("th", { scope: "col" }, name));
    const table = el("table", { "aria-label": spec.title }, el("thead", {}, el("tr", {}, heads)), this.body);
    this.details = el("details", {}, el("summary", {}, "Table", el("span", { class: "unseen" }, `: ${spec.title}`)), el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `${spec.title}, table` }, table));
    this.details.addEventListener("toggle", () => this.#fillTable());
    this.frame = el("div", { class: "frame" }, this.picture, this.tip);
    const legend = spec.series.length < 2 ? null : el("p", { class: "legend" }, spec.series.map((each) => el("span", { class: `key ${each.look}` }, each.name)));
    this.node = el("figure", { class: "plot" }, el("figcaption", {}, el("span", {}, spec.title), this.said), legend ?? el("p", { class: "legend" }), this.frame, this.details);
    this.frame.addEventListener("pointermove", (event) => this.#point(event));
    this.frame.addEventListener("pointerleave", () => this.#unpoint());
    // It is told how wide it is: who asks has the whole page laid out for it.
    new ResizeObserver(([{ contentRect }]) => this.#fit(Math.floor(contentRect.width))).observe(this.frame);
  }

  show(first, model) {
    this.#first = first;
    this.#values = this.spec.series.map((each) => model[each.column]);
    this.#draw();
    this.#fillTable();
  }

  #fit(width) {
    if (!width || width === this.#width) return;
    this.#width = width;
    this.#draw();
  }

  get #count() {
    return this.#values[0]?.length ?? 0;
  }

  #step() {
    return (this.#width - LEFT - RIGHT) / this.#count;
  }

  #x(place) {
    return LEFT + (place + 0.5) * this.#step();
  }

  #draw() {
    if (!this.#width || !this.#count) return;
    const most = this.#most();
    const { top, ticks } = scale(most, this.spec);
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    set(this.picture, "width", this.#width);
    set(this.picture, "viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    set(this.picture, "aria-label", this.#words());
    say(this.said, this.#latest());
    this.marker = svg("line", { class: "marker", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    fill(this.picture, this.#grid(ticks, y), this.#shapes(y), this.#times(), most ? null : this.#nothing(), this.marker);
  }

  #grid(ticks, y) {
    return ticks.map((tick) =>
      svg("g", {},
        svg("line", { class: tick ? "grid" : "axis", x1: LEFT, x2: this.#width - RIGHT, y1: y(tick), y2: y(tick) }),
        svg("text", { x: LEFT - 6, y: y(tick) + 3.5, "text-anchor": "end" }, tick ? this.spec.format(tick) : "0")));
  }

  #nothing() {
    return svg("text", { x: LEFT + (this.#width - LEFT - RIGHT) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing in the last hour");
  }

  #times() {
    const places = this.#width < 300 ? [0, 59] : [0, 20, 40, 59];
    return places.map((place) =>
      svg("text", { x: place === 59 ? this.#width - RIGHT : this.#x(place), y: HEIGHT - 5, "text-anchor": place === 0 ? "start" : place === 59 ? "end" : "middle" }, minute(this.#at(place))));
  }

  #shapes(y) {
    const floor = new Array(this.#count).fill(0);
    return this.spec.series.map((series, index) => {
      const values = this.#values[index];
      return series.kind === "bar" ? this.#bars(series, values, floor, y) : this.#line(series, values, y);
    });
  }

  #bars(series, values, floor, y) {
    const gap = this.#step() > 4 ? 1 : 0;
    let path = "";
    values.forEach((value, place) => {
      if (!value) return;
      const left = LEFT + place * this.#step();
      const bottom = y(floor[place]);
      floor[place] += value;
      path += `M${left.toFixed(1)} ${bottom.toFixed(1)}V${Math.min(y(floor[place]), bottom - 1).toFixed(1)}h${(this.#step() - gap).toFixed(1)}V${bottom.toFixed(1)}z`;
    });
    return svg("path", { class: `bars ${series.look}`, d: path });
  }

  #line(series, values, y) {
    const runs = runsOf(values);
    const line = runs.map((run) => `M${run.map(([place, value]) => `${this.#x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}`).join("");
    const shapes = [svg("path", { class: `line ${series.look}`, d: line })];
    if (series.look.includes("area")) {
      const area = runs.map((run) => `M${this.#x(run[0][0]).toFixed(1)} ${y(0)}L${run.map(([place, value]) => `${this.#x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}V${y(0)}z`).join("");
      shapes.unshift(svg("path", { class: `fill ${series.look}`, d: area }));
    }
    // What stands alone would be a line of no length.
    for (const [place, value] of runs.filter((run) => run.length === 1).flat()) {
      shapes.push(svg("circle", { class: `dot ${series.look}`, cx: this.#x(place), cy: y(value), r: 2 }));
    }
    return svg("g", {}, shapes);
  }

  #most() {
    const sums = new Array(this.#count).fill(0);
    this.spec.series.forEach((series, index) => this.#values[index].forEach((value, place) => {
      sums[place] = series.kind === "bar" ? sums[place] + value : Math.max(sums[place], value ?? 0);
    }));
    return Math.max(0, ...sums);
  }

  #at(place) {
    return this.#first + place * MINUTE_MS;
  }

  /** The newest that is known of the first series. */
  #latest() {
    const known = this.#values[0].filter((value) => value !== null);
    return known.length ? this.spec.format(known.at(-1)) : NOT_KNOWN;
  }

  #words() {
    const said = this.spec.series.map((series, index) => {
      const values = this.#values[index].filter((value) => value !== null);
      if (!values.length) return `${series.name}: nothing known`;
      return `${series.name}: lately ${this.spec.format(values.at(-1))}, at most ${this.spec.format(Math.max(...values))}`;
    });
    return `${this.spec.title}, the last hour. ${said.join("; ")}. The table has each minute.`;
  }

  #fillTable() {
    if (!this.details.open) return;
    const rows = [];
    for (let place = this.#count - 1; place >= 0; place -= 1) {
      const cells = this.#values.map((values) => el("td", { class: "number" }, values[place] === null ? NOT_KNOWN : this.spec.format(values[place])));
      rows.push(el("tr", {}, el("th", { scope: "row" }, minute(this.#at(place))), cells));
    }
    this.body.replaceChildren(...rows);
  }

  #point(event) {
    const place = Math.floor((event.clientX - this.frame.getBoundingClientRect().left - LEFT) / this.#step());
    if (!this.marker || place < 0 || place >= this.#count) {
      this.#unpoint();
      return;
    }
    const x = this.#x(place);
    set(this.marker, "x1", x);
    set(this.marker, "x2", x);
    set(this.marker, "visibility", "visible");
    const said = this.spec.series.map((series, index) => {
      const value = this.#values[index][place];
      const written = value === null ? NOT_KNOWN : this.spec.format(value);
      return this.spec.series.length > 1 ? `${series.name} ${written}` : written;
    });
    say(this.tip, `${minute(this.#at(place))}  ${said.join(" · ")}`);
    this.tip.hidden = false;
    const left = Math.min(Math.max(x - this.tip.offsetWidth / 2, 0), this.#width - this.tip.offsetWidth);
    this.tip.style.left = `${left}px`;
  }

  #unpoint() {
    this.tip.hidden = true;
    if (this.marker) set(this.marker, "visibility", "hidden");
  }
}

/** Places with their values, in runs without a gap. */
function runsOf(values) {
  const runs = [];
  let run = [];
  values.forEach((value, place) => {
    if (value !== null) run.push([place, value]);
    else if (run.length) {
      runs.push(run);
      run = [];
    }
  });
  if (run.length) runs.push(run);
  return runs;
}

/** Round numbers from 0 to a little above the most: of seconds, round ones of minutes and hours. */
function scale(most, { whole, format }) {
  if (!most) return { top: 1, ticks: [0] };
  const power = 10 ** Math.floor(Math.log10(most));
  let steps = [0.5, 1, 2.5, 5].map((each) => each * power);
  if (format === span && most > 15) steps = SPANS.concat(steps.map((each) => Math.ceil(each / 86_400) * 86_400));
  let step = steps.find((each) => most / each <= 3) ?? 5 * power;
  if (whole) step = Math.max(1, Math.ceil(step));
  const count = Math.max(1, Math.ceil(most / step - 1e-9));
  return { top: count * step, ticks: Array.from({ length: count + 1 }, (_, place) => place * step) };
}

