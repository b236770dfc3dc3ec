/** The list of jobs: the newest, which follow what happens, and older pages. */

import { get } from "./api.js";
import { showAge } from "./clock.js";
import { busy, byId, el, fill, say } from "./dom.js";
import { between, brief, percent, plural, shortId, span } from "./format.js";
import { link } from "./outcome.js";
import { isKeyNeeded } from "./session.js";
import { Chip } from "./status.js";
import { Table } from "./table.js";

const PAGE = 20;
// So many the stream tells of.
const NEWEST = 50;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
// Where no stream says what happens, or not of all that is asked for.
const POLL_MS = 3000;
const SLOW_POLL_MS = 6000;

const FIELDS = ["status", "model", "batch_id"];

const COLUMNS = [
  {
    title: "Job",
    cell: (cell) => {
      const anchor = link("", "");
      cell.append(anchor);
      return (job) => {
        if (anchor.title === job.job_id) return;
        anchor.href = `#/jobs/${job.job_id}`;
        anchor.title = job.job_id;
        say(anchor, `…${shortId(job.job_id)}`);
      };
    },
  },
  {
    title: "Status",
    cell: (cell) => {
      const chip = new Chip();
      cell.append(chip.node);
      return (job) => chip.update(job.status);
    },
  },
  { title: "Outcome", kind: "grow", cell: (cell) => (job) => say(cell, outcome(job)) },
  { title: "Model", kind: "wide", cell: (cell) => (job) => say(cell, job.model) },
  { title: "Waited", kind: "number wide", cell: (cell) => (job) => say(cell, span(job.attempt > 1 ? null : between(job.created_at, job.started_at))) },
  { title: "Took", kind: "number wide", cell: (cell) => (job) => say(cell, span(between(job.started_at, job.finished_at))) },
  { title: "Attempts", kind: "number wide", cell: (cell) => (job) => say(cell, job.attempt) },
  {
    title: "Age",
    kind: "number",
    cell: (cell) => {
      const time = el("time");
      cell.append(time);
      return (job) => showAge(time, job.created_at);
    },
  },
];

function outcome(job) {
  if (job.error_code) return job.error_code;
  if (job.status === "processing") return job.fraction === null ? "" : percent(job.fraction);
  return job.status === "completed" ? brief(job.result) || "–" : "";
}

export class JobList {
  #filters = {};
  #jobs = [];
  #newest = null;
  #next = null;
  // The addresses of this page and of those before it; none of the first one.
  #trail = [];
  #turn = 0;
  #timer = null;
  #running = false;
  #failed = null;
  // Whether other jobs are wanted than those that are shown.
  #anew = true;

  /**
   * @param {{refused: (error: Error) => void, found: () => void, filtered: (filters: Object) => void}} on
   */
  constructor(on) {
    this.on = on;
    this.form = byId("filters");
    this.said = byId("filters-said");
    this.table = new Table("Jobs", COLUMNS, (job) => job.job_id);
    this.empty = el("div", { class: "empty" });
    this.more = el("button", { type: "button", hidden: true, onclick: () => this.#showMore() });
    this.older = el("button", { type: "button", onclick: () => this.#turnPage(this.older, () => this.#goOlder()) }, "Older");
    this.newer = el("button", { type: "button", onclick: () => this.#turnPage(this.newer, () => this.#goNewer()) }, "Newer");
    this.first = el("button", { type: "button", onclick: () => this.#turnPage(this.first, () => this.#goFirst()) }, "Newest");
    this.where = el("p", { class: "muted small", role: "status", "aria-label": "Which page" });
    this.pages = el("nav", { class: "row between pages", "aria-label": "Pages of jobs" }, this.where, el("div", { class: "row" }, this.first, this.newer, this.older));
    fill(byId("jobs"), this.more, this.table.node, this.empty, this.pages);
    this.table.body.addEventListener("focusout", () => setTimeout(() => this.#show()));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", () => this.#readForm());
  }

  /** Offers these models to choose from. */
  offer(models) {
    const select = this.form.elements.model;
    const known = [...select.options].map((option) => option.value);
    for (const model of models) if (!known.includes(model)) select.append(el("option", { value: model }, model));
    select.value = this.#filters.model ?? "";
  }

  /** Shows jobs of this kind, the newest of them. */
  filter(filters) {
    const wanted = Object.fromEntries(FIELDS.filter((name) => filters[name]).map((name) => [name, filters[name]]));
    if (JSON.stringify(wanted) === JSON.stringify(this.#filters) && this.#running) return;
    this.#filters = wanted;
    if (wanted.model) this.offer([wanted.model]);
    for (const name of FIELDS) this.form.elements[name].value = wanted[name] ?? "";
    say(this.said, "");
    this.#jobs = [];
    this.#anew = true;
    this.#goFirst();
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#load();
  }

  stop() {
    this.#running = false;
    this.#turn += 1;
    clearTimeout(this.#timer);
  }

  /** Lets go of all that was shown. */
  clear() {
    this.stop();
    this.#jobs = [];
    this.#newest = null;
    this.#trail = [];
    this.table.show([]);
  }

  /** Takes what the stream says of the newest jobs. */
  take({ whole, jobs }) {
    if (whole) this.#newest = jobs;
    else if (this.#newest) this.#newest = merged(this.#newest, jobs, NEWEST);
    if (!this.#running) return;
    if (this.#isLive) {
      this.#jobs = this.#newest.slice(0, PAGE);
      this.#next = this.#newest.length > PAGE;
    } else {
      const here = new Set(this.#jobs.map((job) => job.job_id));
      const fits = (job) => FIELDS.every((name) => !this.#filters[name] || job[name] === this.#filters[name]);
      const news = jobs.filter((job) => here.has(job.job_id) || (!this.#trail.length && fits(job)));
      const kept = merged(this.#jobs, news, PAGE);
      this.#jobs = this.#trail.length ? kept : kept.filter(fits);
    }
    this.#failed = null;
    this.#show();
  }

  /** Takes what is known of one job already, before the stream says it. */
  note(job) {
    if (this.#running) this.take({ whole: false, jobs: [asBrief(job)] });
  }

  /** The stream has ended: what it said gets old. */
  deaf() {
    this.#newest = null;
    if (this.#running) this.#load();
  }

  get #isLive() {
    return this.#newest !== null && !this.#trail.length && !Object.keys(this.#filters).length;
  }

  get #address() {
    return this.#trail.at(-1) ?? `/jobs?${new URLSearchParams({ limit: PAGE, ...this.#filters })}`;
  }

  async #load() {
    const turn = (this.#turn += 1);
    clearTimeout(this.#timer);
    if (this.#isLive) {
      this.take({ whole: true, jobs: this.#newest });
      this.#show(this.#anew);
      this.#anew = false;
      return;
    }
    try {
      const page = await get(this.#address);
      if (turn !== this.#turn) return;
      this.#jobs = page.jobs.map(asBrief);
      this.#next = page.next;
      this.#failed = null;
      this.on.found();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#failed = error;
      this.on.refused(error);
    }
    this.#show(this.#anew);
    this.#anew = false;
    if (!this.#trail.length && this.#running) {
      this.#timer = setTimeout(() => this.#load(), this.#newest ? SLOW_POLL_MS : POLL_MS);
    }
  }

  /** Goes to another page, once a press; the focus stays among the buttons. */
  async #turnPage(button, go) {
    this.#anew = true;
    await busy(button, go);
    this.#enable();
    const usable = (each) => !each.hidden && !each.disabled;
    if (!usable(button)) [this.newer, this.older].find(usable)?.focus({ preventScroll: true });
  }

  async #goOlder() {
    try {
      // The first page has moved on since it was read.
      const page = typeof this.#next === "string" && this.#trail.length ? { next: this.#next } : await get(this.#address);
      if (!page.next) return;
      this.#trail.push(page.next);
      await this.#load();
    } catch (error) {
      this.on.refused(error);
    }
  }

  #goNewer() {
    this.#trail.pop();
    return this.#load();
  }

  #goFirst() {
    this.#trail = [];
    return this.#running ? this.#load() : null;
  }

  #readForm() {
    const filters = Object.fromEntries(FIELDS.map((name) => [name, this.form.elements[name].value.trim()]));
    if (filters.batch_id && !UUID.test(filters.batch_id)) {
      say(this.said, "A batch is named by its whole id.");
      return;
    }
    say(this.said, "");
    this.on.filtered(filters);
  }

  /** Shows the jobs; new ones not while the keyboard is within the list, unless asked for. */
  #show(all = false) {
    if (!this.#running) return;
    let jobs = this.#jobs;
    this.more.hidden = true;
    if (!all && this.table.body.contains(document.activeElement)) {
      const shown = [...this.table.rows.keys()];
      const held = jobs.filter((job) => !shown.includes(job.job_id)).length;
      if (held && shown.length) {
        const known = new Map([...(this.#newest ?? []), ...jobs].map((job) => [job.job_id, job]));
        jobs = shown.map((id) => known.get(id) ?? this.table.rows.item(id));
        this.more.hidden = false;
        say(this.more, `Show ${plural(held, "newer job")}`);
      }
    }
    this.table.show(jobs);
    const isEmpty = jobs.length === 0;
    this.table.node.hidden = isEmpty;
    this.empty.hidden = !isEmpty;
    if (isEmpty) fill(this.empty, this.#nothing());
    this.#enable();
    this.pages.hidden = isEmpty && !this.#trail.length;
    say(this.where, this.#trail.length ? `Page ${this.#trail.length + 1}, as it was when it was opened` : "The newest, as they come");
  }

  #showMore() {
    this.#show(true);
    this.table.body.querySelector("a")?.focus({ preventScroll: true });
  }

  #enable() {
    this.older.disabled = !this.#next;
    this.newer.hidden = this.first.hidden = !this.#trail.length;
  }

  #nothing() {
    if (this.#failed) return el("p", {}, `The jobs can not be read now. ${this.#failed.message}`);
    if (Object.keys(this.#filters).length || this.#trail.length) {
      const all = el("button", { type: "button", onclick: () => this.on.filtered({}) }, "Show all");
      return [el("p", {}, "No job is like that."), all];
    }
    return [
      el("p", {}, "No job yet. Try a text above, or submit one from a terminal:"),
      el("pre", { tabindex: 0, "aria-label": "A command that submits a text" }, command()),
    ];
  }
}

function command() {
  const key = isKeyNeeded ? ' -H "Authorization: Bearer jr_…"' : "";
  return `curl -X POST ${location.origin}/predict -H "Content-Type: application/json"${key} -d '{"text": "This product is amazing!"}'`;
}

function asBrief(job) {
  return { ...job, error_code: job.error?.code ?? null, fraction: job.progress?.fraction ?? null };
}

/** The jobs with news of some, newest first. */
function merged(jobs, news, most) {
  const all = new Map(jobs.map((job) => [job.job_id, job]));
  for (const job of news) all.set(job.job_id, job);
  return [...all.values()].sort((one, other) => (one.job_id < other.job_id ? 1 : -1)).slice(0, most);
}
