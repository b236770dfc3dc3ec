/** What came of a job, or what is coming: in a sentence, and in full. */

import { el, fill, say, set, svg } from "./dom.js";
import { number, percent, plural, span } from "./format.js";

/** Says how a job stands. */
export function sentence(job) {
  switch (job.status) {
    case "pending": return waiting(job);
    case "processing": return job.progress ? `${percent(job.progress.fraction)}: ${job.progress.word}` : "The model is at work.";
    case "completed": return job.inference_seconds === null ? "Done." : `Done; the model took ${span(job.inference_seconds)}.`;
    default: return job.error?.code === "cancelled" ? "It was cancelled." : `It failed: ${job.error?.code ?? "unknown"}.`;
  }
}

function waiting(job) {
  const again = job.attempt > 0 ? `Attempt ${job.attempt} failed; it is tried again. ` : "";
  const place = job.queue;
  if (!place) return `${again}It waits.`;
  const ahead = place.at_least ? `${number(place.position)} or more are ahead` : place.position ? `${plural(place.position, "job")} ahead` : "It is next";
  const eta = place.eta_seconds === null ? "nobody can tell when it is done: no runner is there, or none has completed a job yet" : `done in about ${span(place.eta_seconds)}${place.at_least ? " or more" : ""}`;
  return `${again}${ahead}; ${eta}.`;
}

/** A bar of how far it is, of how sure it is. */
export class Bar {
  constructor(label) {
    this.fill = svg("rect", { height: 6, width: 0 });
    this.node = svg("svg", { class: "bar", role: "img", viewBox: "0 0 100 6", preserveAspectRatio: "none" }, svg("rect", { class: "rest", width: 100, height: 6 }), this.fill);
    this.label = label;
  }

  update(fraction) {
    set(this.fill, "width", Math.max(0, Math.min(100, fraction * 100)));
    set(this.node, "aria-label", `${this.label} ${percent(fraction)}`);
  }
}

/** The result, or the error. */
export class Outcome {
  constructor() {
    this.node = el("div", { class: "outcome" });
    this.shown = null;
  }

  update(job) {
    const written = JSON.stringify([job.status, job.result, job.error]);
    if (written === this.shown) return;
    this.shown = written;
    if (job.status === "completed") fill(this.node, of(job.result));
    else if (job.status === "failed") fill(this.node, ofError(job.error));
    else fill(this.node);
  }
}

function of(result) {
  if (result && typeof result.sentiment === "string" && typeof result.confidence === "number") {
    const bar = new Bar("Confidence");
    bar.update(result.confidence);
    return el("div", { class: "sentiment" }, el("p", { class: "verdict" }, result.sentiment), el("p", { class: "muted" }, `confidence ${percent(result.confidence)}`), bar.node);
  }
  return el("pre", { tabindex: 0, "aria-label": "Result" }, JSON.stringify(result, null, 2));
}

function ofError(error) {
  if (!error) return null;
  return el("div", { class: "failure" }, el("p", {}, el("code", {}, error.code)), el("p", { class: "message" }, error.message));
}

/** How far a job is, where its model says so. */
export class ProgressBar {
  constructor() {
    this.bar = new Bar("Progress");
    this.node = el("div", { class: "progress", hidden: true }, this.bar.node);
  }

  update(job) {
    const far = job.status === "processing" ? job.progress?.fraction ?? null : null;
    this.node.hidden = job.status !== "processing";
    this.node.classList.toggle("unknown", far === null);
    this.bar.update(far ?? 0);
    if (far === null) set(this.bar.node, "aria-label", "At work");
  }
}

export function link(id, text) {
  const node = el("a", { class: "id", href: `#/jobs/${encodeURIComponent(id)}`, title: id });
  say(node, text);
  return node;
}
