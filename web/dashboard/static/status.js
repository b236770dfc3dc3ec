/** A status as a chip: a shape, a colour and its name. */

import { el, say, set, svg } from "./dom.js";

const SHAPES = {
  pending: () => [svg("circle", { cx: 6, cy: 6, r: 4, class: "hollow" })],
  processing: () => [svg("circle", { cx: 6, cy: 6, r: 4, class: "hollow" }), svg("path", { d: "M6 2a4 4 0 0 1 0 8z" })],
  completed: () => [svg("path", { d: "M2.4 6.4 5 9l4.6-5.6", class: "stroke" })],
  failed: () => [svg("path", { d: "M3 3l6 6M9 3l-6 6", class: "stroke" })],
  // Of runners.
  idle: () => [svg("circle", { cx: 6, cy: 6, r: 4, class: "hollow" })],
  working: () => [svg("circle", { cx: 6, cy: 6, r: 4 })],
  starting: () => [svg("circle", { cx: 6, cy: 6, r: 4, class: "hollow" }), svg("path", { d: "M6 2a4 4 0 0 1 0 8z" })],
  stopping: () => [svg("rect", { x: 2.5, y: 2.5, width: 7, height: 7, rx: 1 })],
  silent: () => [svg("path", { d: "M6 1.5 11 10.5H1z", class: "stroke" })],
  lost: () => [svg("path", { d: "M3 3l6 6M9 3l-6 6", class: "stroke" })],
};

export class Chip {
  constructor() {
    this.shape = svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
    this.name = el("span");
    this.node = el("span", { class: "chip" }, this.shape, this.name);
  }

  update(status) {
    if (this.node.dataset.status === status) return;
    this.node.dataset.status = status;
    this.shape.replaceChildren(...(SHAPES[status] ?? SHAPES.pending)());
    say(this.name, status);
    set(this.node, "class", "chip");
  }
}
