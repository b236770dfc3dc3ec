/** What time it is by the database, and texts that grow old with it. */

import { say } from "./dom.js";
import { ago, exact } from "./format.js";

let lead = 0;
const aging = new Set();

/** Takes over the time of the server. */
export function setNow(text) {
  lead = Date.parse(text) - Date.now();
}

export const now = () => Date.now() + lead;

/** Shows how long ago something was in an element, from now on; the exact time is its title. */
export function showAgo(node, time) {
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
  aging.add(node);
  write(node);
}

function write(node) {
  say(node, ago(now() - Date.parse(node.dateTime)));
}

/** Brings to date what is on the page; what is not any more is let go. */
function tick() {
  for (const node of aging) {
    if (node.isConnected) write(node);
    else aging.delete(node);
  }
}

setInterval(tick, 1000);
