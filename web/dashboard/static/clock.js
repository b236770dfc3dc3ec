/** What time it is by the database, and texts that grow old with it. */

import { say } from "./dom.js";
import { age, ago, exact } from "./format.js";

let lead = 0;
const aging = new Map();

/** Takes over the time of the server. */
export function setNow(text) {
  lead = Date.parse(text) - Date.now();
}

export const now = () => Date.now() + lead;

/** Shows how long ago something was in an element, from now on; the exact time is its title. */
export function showAgo(node, time) {
  show(node, time, ago);
}

/** Shows how old something is; see showAgo. */
export function showAge(node, time) {
  show(node, time, age);
}

function show(node, time, words) {
  if (!time) {
    aging.delete(node);
    say(node, "–");
    node.removeAttribute("title");
    return;
  }
  if (node.dateTime !== time) {
    node.dateTime = time;
    node.title = exact(time);
  }
  aging.set(node, words);
  write(node, words);
}

function write(node, words) {
  say(node, words(Math.max(0, Math.round((now() - Date.parse(node.dateTime)) / 1000))));
}

/** Brings to date what is on the page; what is not any more is let go. */
function tick() {
  for (const [node, words] of aging) {
    if (node.isConnected) write(node, words);
    else aging.delete(node);
  }
}

setInterval(tick, 1000);
