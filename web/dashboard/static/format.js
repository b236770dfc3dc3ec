/** Numbers, times and spans as a person reads them. */

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

// To make one of these takes milliseconds, and most numbers are small.
const whole = once(() => new Intl.NumberFormat("en"));
const compact = once(() => new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }));

export const number = (value) => (value < 1000 ? String(value) : whole().format(value));
export const short = (value) => (value < 10_000 ? number(value) : compact().format(value));
export const minute = (time) => clock(new Date(time));

/** A time to the millisecond, as the reader's clock has it. */
export function exact(time) {
  const at = new Date(time);
  const day = `${at.getDate()} ${MONTHS[at.getMonth()]} ${at.getFullYear()}`;
  return `${day}, ${clock(at)}:${padded(at.getSeconds())}.${padded(at.getMilliseconds(), 3)}`;
}

export const percent = (fraction) => `${Math.round(fraction * 100)}%`;
export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

/** A rate a second, or a minute where that is little. */
export function rate(perSecond) {
  if (!perSecond) return "0 / s";
  return perSecond < 0.1 ? `${trim(perSecond * 60)} / min` : `${trim(perSecond)} / s`;
}

/** A span of seconds: 12 ms, 5.0 s, 3 min 20 s, 2 h 5 min, 3 d. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return seconds > 0 ? "<1 ms" : "0 s";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const all = Math.round(seconds);
  if (all < 3600) return parts(Math.floor(all / 60), "min", all % 60, "s");
  if (all < 86400) return parts(Math.floor(all / 3600), "h", Math.floor((all % 3600) / 60), "min");
  return parts(Math.floor(all / 86400), "d", Math.floor((all % 86400) / 3600), "h");
}

/** How many seconds ago, in whole units: it changes each second at most. */
export const ago = (seconds) => (seconds < 1 ? "now" : `${age(seconds)} ago`);

/** An age in whole seconds, minutes, hours or days. */
export function age(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return parts(Math.floor(seconds / 3600), "h", Math.floor((seconds % 3600) / 60), "min");
  return parts(Math.floor(seconds / 86400), "d", Math.floor((seconds % 86400) / 3600), "h");
}

export function between(start, end) {
  return start && end ? (Date.parse(end) - Date.parse(start)) / 1000 : null;
}

/** The end of an id: ids of one moment begin alike. */
export const shortId = (id) => id.slice(-8);

/** A result in a line. */
export function brief(result) {
  if (result === null || result === undefined) return "";
  if (typeof result === "object" && typeof result.sentiment === "string") {
    const confidence = typeof result.confidence === "number" ? ` ${percent(result.confidence)}` : "";
    return result.sentiment + confidence;
  }
  return JSON.stringify(result);
}

function parts(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}

function trim(value) {
  return value < 10 ? String(Math.round(value * 100) / 100) : number(Math.round(value * 10) / 10);
}

function clock(at) {
  return `${padded(at.getHours())}:${padded(at.getMinutes())}`;
}

function padded(value, digits = 2) {
  return String(value).padStart(digits, "0");
}

function once(make) {
  let made;
  return () => (made ??= make());
}
