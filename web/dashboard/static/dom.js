/** Makes elements. Data become text nodes and attributes, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} name
 * @param {Object<string, any>} attributes `on…` are listeners; false and null are left out
 * @param {...(Node|string|number|null|undefined|Array)} children
 */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else set(node, key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets an attribute, unless it is so already. */
export function set(node, key, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(key)) node.removeAttribute(key);
    return;
  }
  const written = value === true ? "" : String(value);
  if (node.getAttribute(key) !== written) node.setAttribute(key, written);
}

/** Sets the text of a node, unless it is so already. */
export function say(node, text) {
  const written = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== written) node.textContent = written;
}

/** Puts these nodes into a parent, and touches only what is not there already. */
export function fill(parent, ...nodes) {
  const wanted = nodes.flat(Infinity).filter(Boolean);
  for (const child of [...parent.childNodes]) if (!wanted.includes(child)) child.remove();
  let next = parent.firstChild;
  for (const node of wanted) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

/** Rows by a key, made once and brought up to date in place: focus and scroll stay. */
export class Keyed {
  #nodes = new Map();

  /**
   * @param {Element} parent
   * @param {(item: any) => {node: Element, update: (item: any) => void}} make
   */
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
  }

  /** The keys that are shown, in their order. */
  keys() {
    return this.#nodes.keys();
  }

  /** What a row was made of last. */
  item(key) {
    return this.#nodes.get(key).item;
  }

  show(items, keyOf) {
    const shown = new Map();
    for (const item of items) {
      const key = keyOf(item);
      const row = this.#nodes.get(key) ?? this.make(item);
      row.update(item);
      row.item = item;
      shown.set(key, row);
    }
    this.#nodes = shown;
    fill(this.parent, [...shown.values()].map((row) => row.node));
  }
}

/** Disables a button while something is done, and gives it the focus again if it had it. */
export async function busy(button, work) {
  const hadFocus = document.activeElement === button;
  button.disabled = true;
  try {
    return await work();
  } finally {
    button.disabled = false;
    if (hadFocus && (document.activeElement === document.body || !document.activeElement)) button.focus({ preventScroll: true });
  }
}

export const byId = (id) => document.getElementById(id);
