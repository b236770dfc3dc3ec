/** Light, dark, or as the system has it. */

import { byId, say } from "./dom.js";
import { keep, recall } from "./storage.js";

const NAME = "jobrunner-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SAID = { auto: "Auto", light: "Light", dark: "Dark" };

const kept = recall("localStorage", NAME);
let theme = Object.hasOwn(SAID, kept) ? kept : "auto";

function apply() {
  document.documentElement.dataset.theme = theme;
  document.querySelector('meta[name="color-scheme"]').content = theme === "auto" ? "light dark" : theme;
  const button = byId("theme");
  say(button, `◐ ${SAID[theme]}`);
  button.setAttribute("aria-label", `Colours: ${SAID[theme]}. Switch to ${SAID[NEXT[theme]]}`);
}

export function start() {
  apply();
  byId("theme").addEventListener("click", () => {
    theme = NEXT[theme];
    keep("localStorage", NAME, theme);
    apply();
  });
}
