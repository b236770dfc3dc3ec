/** One job in full. */

import { get, post } from "./api.js";
import { now, showAgo } from "./clock.js";
import { busy, byId, el, fill, say, set, svg } from "./dom.js";
import { Follow, isFinal } from "./follow.js";
import { between, exact, plural, shortId, span } from "./format.js";
import { link, Outcome, ProgressBar, sentence } from "./outcome.js";
import { Chip } from "./status.js";

export class JobView {
  #id = null;
  #follow = null;
  #job = null;
  #input = null;

  /** @param {(error: Error) => void} refused is told of what is not of this job */
  constructor(refused) {
    this.refused = refused;
    this.root = byId("job-view");
    setInterval(() => this.#write(), 1000);
  }

  get id() {
    return this.#id;
  }

  show(id) {
    if (id === this.#id) {
      this.resume();
      return;
    }
    this.close();
    this.#id = id;
    this.#make();
    this.#follow = new Follow(id, {
      job: (job) => this.#take(job),
      state: (state, error) => this.#note(state, error),
    });
    this.#follow.start();
    this.#readInput(id);
  }

  resume() {
    this.#follow?.start();
    if (this.#id && this.#input === null) this.#readInput(this.#id);
  }

  pause() {
    this.#follow?.stop();
  }

  close() {
    this.pause();
    this.#id = this.#job = this.#input = this.#follow = null;
    fill(this.root);
  }

  #make() {
    this.chip = new Chip();
    this.chip.node.hidden = true;
    this.heading = el("h1", { tabindex: -1 }, "Job ", el("span", { class: "id" }, this.#id));
    this.words = el("p", { class: "lead", role: "status", "aria-label": "How the job stands" }, "Looking for it…");
    this.progress = new ProgressBar();
    this.outcome = new Outcome();
    this.cancel = el("button", { type: "button", hidden: true, onclick: () => this.#cancel() }, "Cancel the job");
    this.retry = el("button", { type: "button", class: "primary", hidden: true, onclick: () => this.#retry() }, "Retry");
    this.answer = el("p", { class: "said", role: "alert" });
    this.track = svg("svg", { class: "track", role: "img", viewBox: "0 0 1000 10", preserveAspectRatio: "none" });
    this.steps = el("ol", { class: "timeline" });
    this.facts = el("dl", { class: "facts" });
    this.inputBox = el("pre", { tabindex: 0, "aria-label": "Input" }, "…");
    this.whole = el("div", { class: "job-grid", hidden: true },
      el("div", {}, section("What came of it", this.outcome.node), section("Times", this.track, this.steps)),
      el("div", {}, section("Input", this.inputBox), section("Facts", this.facts)));
    fill(this.root,
      el("p", {}, el("a", { href: "#/", class: "back" }, "← All jobs")),
      el("div", { class: "row between job-head" }, this.heading, this.chip.node),
      this.words, this.progress.node,
      el("div", { class: "row" }, this.cancel, this.retry), this.answer, this.whole);
    document.title = `Job …${shortId(this.#id)} – jobrunner`;
  }

  focus() {
    this.heading.focus({ preventScroll: true });
  }

  #take(job) {
    this.#job = job;
    this.whole.hidden = false;
    this.#write();
  }

  #note(state, error) {
    if (state === "refused" && error.status === 404) {
      say(this.words, `There is no such job. It may have been deleted, or is not yours.`);
    } else if (state === "refused" || state === "lost") {
      if (!this.#job) say(this.words, `It can not be read now. ${error?.message ?? ""}`);
      this.refused(error);
    } else if (state === "open") this.refused(null);
  }

  #write() {
    const job = this.#job;
    if (!job) return;
    this.chip.node.hidden = false;
    this.chip.update(job.status);
    say(this.words, sentence(job));
    this.progress.update(job);
    this.outcome.update(job);
    set(this.outcome.node.parentNode, "hidden", !isFinal(job));
    this.cancel.hidden = isFinal(job);
    this.retry.hidden = job.status !== "failed";
    this.#writeTimes(job);
    this.#writeFacts(job);
  }

  #writeFacts(job) {
    const facts = [
      ["Model", job.model],
      ["Version", job.model_version ?? "–"],
      ["Attempts counted", String(job.attempt)],
      ["Priority", String(job.priority)],
      ["Inference", span(job.inference_seconds)],
      ["Jobs in the call", job.batch_size === null ? "–" : String(job.batch_size)],
      ["Batch", job.batch_id === null ? "none" : ["batch", job.batch_id]],
      ["Retry of", job.retry_of === null ? "none" : ["job", job.retry_of]],
    ];
    const written = JSON.stringify(facts);
    if (this.facts.dataset.shown === written) return;
    this.facts.dataset.shown = written;
    fill(this.facts, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "string" ? value : linkTo(...value)))));
  }

  #writeTimes(job) {
    const steps = stepsOf(job);
    const end = isFinal(job) ? Date.parse(job.finished_at) : now();
    const shown = JSON.stringify(steps);
    if (this.steps.dataset.shown !== shown) {
      this.steps.dataset.shown = shown;
      fill(this.steps, steps.map(stepNode));
    }
    const first = Date.parse(job.created_at);
    const scale = 1000 / Math.max(end - first, 1);
    const parts = steps.filter((step) => step.part).map((step) => {
      const from = (Date.parse(step.from) - first) * scale;
      const to = (step.at ? Date.parse(step.at) - first : end - first) * scale;
      return svg("rect", { class: step.part, x: from.toFixed(1), width: Math.max(to - from, 2).toFixed(1), height: 10 });
    });
    this.track.replaceChildren(...parts);
    set(this.track, "aria-label", trackWords(job));
  }

  async #readInput(id) {
    try {
      const { input } = await get(`/jobs/${encodeURIComponent(id)}/input`);
      if (id !== this.#id) return;
      this.#input = input;
      const text = typeof input.text === "string" && Object.keys(input).length === 1;
      say(this.inputBox, text ? input.text : JSON.stringify(input, null, 2));
    } catch (error) {
      if (id === this.#id) say(this.inputBox, `It can not be read now. ${error.message}`);
    }
  }

  async #cancel() {
    await this.#act(this.cancel, async () => {
      const id = this.#id;
      const { status, body } = await post(`/jobs/${id}/cancel`);
      // Another job is shown by now, which this answer is not about.
      if (id !== this.#id) return "";
      this.#take(body);
      if (status === 200) return "It was final before, and stays as it is.";
      return isFinal(body) ? "Cancelled." : "Asked for. It ends within seconds, unless it is done first.";
    });
  }

  async #retry() {
    await this.#act(this.retry, async () => {
      const id = this.#id;
      const { body } = await post(`/jobs/${id}/retry`);
      if (id === this.#id) location.hash = `#/jobs/${body.job_id}`;
      return "";
    });
  }

  async #act(button, act) {
    const { answer } = this;
    say(answer, "");
    try {
      say(answer, await busy(button, act));
    } catch (error) {
      say(answer, error.said ?? "Something went wrong on this page.");
      this.refused(error);
    }
    // What was pressed may not be there any more.
    if (button.hidden && document.activeElement === document.body) this.focus();
  }
}

function section(title, ...children) {
  const id = `job-${title.toLowerCase().replaceAll(" ", "-")}`;
  return el("section", { class: "card", "aria-labelledby": id }, el("h2", { id }, title), children);
}

function linkTo(what, id) {
  if (what === "job") return link(id, `…${shortId(id)}`);
  return el("a", { class: "id", title: id, href: `#/?batch_id=${encodeURIComponent(id)}` }, `…${shortId(id)}`);
}

/**
 * What has happened, in order. `part` is what went before a step, since `from`; the last one
 * may still go on, and has no time then.
 */
function stepsOf(job) {
  const steps = [{ title: "Created", at: job.created_at }];
  let from = job.created_at;
  for (const error of job.errors) {
    if (error.started_at) {
      steps.push({ title: `Attempt ${error.attempt} started`, at: error.started_at, from, part: "waited" });
      from = error.started_at;
    }
    const at = error.failed_at ?? job.finished_at;
    const forGood = isTheEnd(job, error) ? " for good" : "";
    steps.push({ title: `Attempt ${error.attempt} failed${forGood}: ${error.code}`, said: error.message, by: error.runner, at, from, part: "lost" });
    from = at ?? from;
  }
  if (job.errors.some((error) => isTheEnd(job, error))) return steps;
  // A failed job's last attempt is among its errors, unless it was cancelled.
  const isTold = job.errors.some((error) => error.started_at && error.started_at === job.started_at);
  if (job.started_at && !isTold && job.status !== "pending" && job.started_at >= from) {
    steps.push({ title: job.attempt > 1 ? `Attempt ${job.attempt} started` : "Started", at: job.started_at, from, part: "waited" });
    from = job.started_at;
  }
  if (job.status === "pending") steps.push({ title: "Waiting", at: null, from, part: "waited" });
  else if (job.status === "processing") steps.push({ title: "Processing", at: null, from, part: "worked" });
  else if (job.status === "completed") steps.push({ title: "Completed", at: job.finished_at, from, part: "worked" });
  else steps.push({ title: job.error?.code === "cancelled" ? "Cancelled" : "Failed", at: job.finished_at, from, part: from === job.finished_at ? null : "lost" });
  return steps;
}

/** Whether a failed attempt was the last one of a job that failed. */
function isTheEnd(job, error) {
  return job.status === "failed" && job.error?.code !== "cancelled" && error.attempt === job.attempt;
}

function stepNode(step) {
  const time = el("time", { class: "muted" });
  if (step.at) showAgo(time, step.at);
  else say(time, "now");
  const seconds = step.at && step.from ? between(step.from, step.at) : null;
  const after = seconds === null || seconds < 0.0005 ? null : el("span", { class: "after" }, `after ${span(seconds)}`);
  return el("li", { class: step.part ?? "" },
    el("p", {}, el("strong", {}, step.title), " ", after),
    step.said ? el("p", { class: "message" }, step.said) : null,
    el("p", { class: "small muted" }, step.at ? `${exact(step.at)}, ` : "", time, step.by ? ` · by ${step.by}` : ""));
}

function trackWords(job) {
  const waited = between(job.created_at, job.errors[0]?.started_at ?? job.started_at ?? job.finished_at);
  const took = between(job.created_at, job.finished_at);
  const parts = [waited === null ? "Not started yet" : `Waited ${span(waited)}`];
  if (job.errors.length) parts.push(`${plural(job.errors.length, "failed attempt")}`);
  if (took !== null) parts.push(`${span(took)} in all`);
  return `${parts.join(", ")}.`;
}
