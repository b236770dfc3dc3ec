/** The API key, where the service wants one, and whether it is only a client's. Both live in this tab only. */

import { keep, recall } from "./storage.js";

const NAME = "jobrunner-key";
const CLIENT = "jobrunner-client";

export const isKeyNeeded = document.querySelector('meta[name="jobrunner-keys"]').content === "on";

let key = isKeyNeeded ? recall("sessionStorage", NAME) : null;
let operator = !isKeyNeeded || recall("sessionStorage", CLIENT) === null;

export const hasKey = () => !isKeyNeeded || key !== null;
export const headers = () => (key === null ? {} : { Authorization: `Bearer ${key}` });

export const isOperator = () => operator;

export function use(given) {
  key = given;
  keep("sessionStorage", NAME, given);
}

/** Notes what the service has said of the key. */
export function beOperator(isOne) {
  operator = isOne;
  keep("sessionStorage", CLIENT, isOne ? null : "yes");
}

export function forget() {
  key = null;
  keep("sessionStorage", NAME, null);
  beOperator(true);
}
