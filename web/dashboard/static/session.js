/** The API key, where the service wants one. It lives in this tab only. */

const NAME = "jobrunner-key";

export const isKeyNeeded = document.querySelector('meta[name="jobrunner-keys"]').content === "on";

let key = isKeyNeeded ? sessionStorage.getItem(NAME) : null;

export const hasKey = () => !isKeyNeeded || key !== null;
export const headers = () => (key === null ? {} : { Authorization: `Bearer ${key}` });

export function use(given) {
  key = given;
  sessionStorage.setItem(NAME, given);
}

export function forget() {
  key = null;
  sessionStorage.removeItem(NAME);
}
