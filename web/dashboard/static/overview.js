/** How the queue stands now, the models, and the runners. */

import { now, showAgo } from "./clock.js";
import { byId, el, fill, say, set } from "./dom.js";
import { age, number, plural, rate, short, span } from "./format.js";
import { Chip } from "./status.js";
import { Table } from "./table.js";

const FIGURES = [
  ["Pending", (sum) => short(sum.pending), waits],
  ["Processing", (sum) => short(sum.processing), (sum) => `of ${plural(sum.workers, "worker")}`],
  ["Rate", (sum) => rate(sum.rate), () => "over about a minute"],
  ["Runners", (sum) => number(sum.runners), (sum) => `${number(sum.ready)} of ${plural(sum.workers, "worker")} ready`],
];

function waits(sum) {
  const parts = [];
  if (sum.oldest) parts.push(`oldest ${age((now() - Date.parse(sum.oldest)) / 1000)}`);
  if (sum.waiting) parts.push(`${number(sum.waiting)} to be tried again`);
  return parts.join(", ") || "nothing waits";
}

const text = (of) => (cell) => (item) => say(cell, of(item));

/** How many are in work, and the way to all that is. */
const inWork = (of) => (cell) => {
  const link = el("a", { title: "All that is in work" });
  cell.append(link);
  return (item) => {
    say(link, number(of(item)));
    set(link, "href", of(item) ? "#/?status=processing" : null);
  };
};

const MODELS = [
  { title: "Model", cell: text((each) => each.model) },
  { title: "Version", kind: "grow", cell: text((each) => each.versions.join(", ") || "none runs") },
  { title: "Pending", kind: "number", cell: text((each) => number(each.pending)) },
  { title: "Processing", kind: "number wide", cell: text((each) => number(each.processing)) },
  { title: "Rate", kind: "number wide", cell: text((each) => rate(each.jobs_per_second)) },
  { title: "Inference", kind: "number wide", cell: text((each) => span(each.inference_seconds)) },
  { title: "Runners", kind: "number wide", cell: text((each) => number(each.runners)) },
  { title: "Workers", kind: "number", cell: text((each) => number(each.workers)) },
];

const RUNNERS = [
  {
    title: "Runner",
    kind: "grow",
    cell: (cell) => {
      const name = el("span", { class: "id" });
      const trouble = el("span", { class: "trouble", hidden: true });
      cell.append(name, trouble);
      return (runner) => {
        say(name, runner.runner);
        say(trouble, runner.trouble ? `Trouble: ${runner.trouble}` : "");
        trouble.hidden = !runner.trouble;
      };
    },
  },
  {
    title: "State",
    cell: (cell) => {
      const chip = new Chip();
      cell.append(chip.node);
      return (runner) => chip.update(runner.state);
    },
  },
  { title: "Models", kind: "wide", cell: text(served) },
  { title: "Workers", kind: "number wide", cell: text((each) => (each.ready === each.workers ? number(each.workers) : `${each.ready} of ${each.workers}`)) },
  { title: "Holds", kind: "number", cell: inWork((each) => each.busy) },
  { title: "Rate", kind: "number wide", cell: text((each) => rate(each.jobs_per_second)) },
  { title: "Done", kind: "number wide", cell: text((each) => short(each.completed)) },
  { title: "Failed", kind: "number wide", cell: text((each) => short(each.failed)) },
  { title: "Memory", kind: "number wide", cell: text((each) => (each.memory_mb === null ? "–" : `${number(each.memory_mb)} MB`)) },
  { title: "Heartbeat", kind: "number", cell: time((each) => each.heartbeat_at) },
];

function served(runner) {
  const versions = runner.versions ?? [];
  return runner.models.map((model, place) => (versions.length === runner.models.length && versions[place] ? `${model} ${versions[place]}` : model)).join(", ");
}

function time(of) {
  return (cell) => {
    const node = el("time");
    cell.append(node);
    return (item) => showAgo(node, of(item));
  };
}

export class State {
  #sum = null;

  constructor() {
    this.card = byId("state");
    this.body = byId("state-body");
    this.figures = FIGURES.map(([title]) => {
      const value = el("dd", { class: "value" });
      const beside = el("dd", { class: "muted small" });
      return { value, beside, node: el("div", {}, el("dt", {}, title), value, beside) };
    });
    this.list = el("dl", { class: "figures" }, this.figures.map((figure) => figure.node));
    this.verdict = el("p", { class: "verdict-line", role: "status", "aria-label": "How it stands" });
    this.models = new Table("Models", MODELS, (each) => each.model);
    this.runners = new Table("Runners", RUNNERS, (each) => each.runner);
    this.noRunner = el("div", { class: "empty", hidden: true }, el("p", {}, "No runner works. Start one:"), el("pre", {}, "jobrunner start --workers 2"));
    fill(byId("models"), this.models.node);
    fill(byId("runners"), this.runners.node, this.noRunner);
    setInterval(() => this.#write(), 1000);
  }

  show({ queues, runners }) {
    const add = (name) => queues.reduce((sum, queue) => sum + queue[name], 0);
    const live = runners.filter((runner) => runner.state !== "lost" && runner.state !== "silent");
    const crew = (name) => live.reduce((sum, runner) => sum + runner[name], 0);
    this.#sum = {
      pending: add("pending"),
      waiting: add("waiting_to_retry"),
      processing: add("processing"),
      rate: add("jobs_per_second"),
      oldest: queues.map((queue) => queue.oldest_pending_at).filter(Boolean).sort()[0],
      runners: live.length,
      workers: crew("workers"),
      ready: crew("ready"),
      unserved: queues.filter((queue) => queue.pending && !queue.runners).map((queue) => queue.model),
      troubled: runners.filter((runner) => runner.trouble || runner.state === "silent").length,
    };
    this.card.removeAttribute("aria-busy");
    byId("crew").hidden = false;
    fill(this.body, this.verdict, this.list);
    this.#write();
    this.models.show(queues);
    this.runners.show(runners);
    this.runners.node.hidden = runners.length === 0;
    this.noRunner.hidden = runners.length > 0;
  }

  /** Says who may see it, where that is not he. */
  close() {
    this.#sum = null;
    this.card.removeAttribute("aria-busy");
    byId("crew").hidden = true;
    fill(this.body,
      el("p", {}, "The state of the queue wants the key of an operator. Your own jobs are all here."),
      el("p", { class: "muted small" }, "Such a key is made with ", el("code", {}, "jobrunner keys create NAME --operator"), "."));
  }

  /** Lets go of all that was shown. */
  clear() {
    this.#sum = null;
    fill(this.body);
    this.models.show([]);
    this.runners.show([]);
    byId("crew").hidden = true;
  }

  #write() {
    const sum = this.#sum;
    if (!sum) return;
    FIGURES.forEach(([, value, beside], place) => {
      say(this.figures[place].value, value(sum));
      say(this.figures[place].beside, beside(sum));
    });
    const [word, said] = verdict(sum);
    this.verdict.dataset.verdict = word;
    say(this.verdict, said);
  }
}

/** What a person should know first. */
function verdict(sum) {
  if (!sum.runners) return ["bad", sum.pending ? "No runner is there: jobs wait until one is started." : "No runner is there. Start one with “jobrunner start”."];
  if (sum.unserved.length) return ["bad", `No runner serves ${sum.unserved.join(", ")}: those jobs wait.`];
  if (sum.troubled) return ["warn", `${plural(sum.troubled, "runner")} in trouble: see below.`];
  if (!sum.ready) return ["warn", "The workers are still loading their model."];
  const due = sum.pending - sum.waiting;
  if (due > 0 && sum.processing >= sum.workers) return ["busy", "All workers are busy; the rest waits its turn."];
  if (sum.pending || sum.processing) return ["busy", "At work."];
  return ["good", "All is well, and nothing waits."];
}
