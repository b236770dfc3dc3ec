/** The API key, where the service wants one. It lives in this tab only. */

import { keep, recall } from "./storage.js";

const NAME = "jobrunner-key";

export const isKeyNeeded = document.querySelector('meta[name="jobrunner-keys"]').content === "on";

let key = isKeyNeeded ? recall("sessionStorage", NAME) : null;

export const hasKey = () => !isKeyNeeded || key !== null;
export const headers = () => (key === null ? {} : { Authorization: `Bearer ${key}` });

export function use(given) {
  key = given;
  keep("sessionStorage", NAME, given);
}

export function forget() {
  key = null;
  keep("sessionStorage", NAME, null);
}
