/** Tables whose rows are brought up to date in place. */

import { el, Keyed, set } from "./dom.js";

/**
 * @typedef {Object} Column
 * @property {string} title
 * @property {string} [kind] classes: number, wide (left out where the screen is narrow), …
 * @property {(cell: Element) => (item: any) => void} cell makes a cell, gives what updates it
 */

export class Table {
  /**
   * @param {string} label
   * @param {Column[]} columns
   * @param {(item: any) => string} keyOf
   */
  constructor(label, columns, keyOf) {
    this.keyOf = keyOf;
    this.body = el("tbody");
    const heads = columns.map((column) => el("th", { scope: "col", class: column.kind }, column.title));
    this.node = el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, heads)), this.body);
    this.rows = new Keyed(this.body, () => row(columns));
  }

  show(items) {
    this.rows.show(items, this.keyOf);
  }
}

function row(columns) {
  const node = el("tr");
  const updates = columns.map((column, place) => {
    const cell = place ? el("td", { class: column.kind }) : el("th", { scope: "row", class: column.kind });
    node.append(cell);
    return column.cell(cell);
  });
  return {
    node,
    update(item) {
      set(node, "data-status", item.status ?? null);
      for (const update of updates) update(item);
    },
  };
}
