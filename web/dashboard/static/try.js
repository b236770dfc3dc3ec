/** The box to try a text, and to watch what becomes of it. */

import { get, post } from "./api.js";
import { busy, byId, el, fill, say } from "./dom.js";
import { Follow } from "./follow.js";
import { shortId } from "./format.js";
import { link, Outcome, ProgressBar, sentence } from "./outcome.js";
import { Chip } from "./status.js";

const DEFAULT = "sentiment";

export class Try {
  #follow = null;
  // The same until it is answered: to submit again after a failure makes no second job.
  #key = null;
  #sent = null;

  /** @param {{refused: (error: Error) => void, job: (job: any) => void}} on */
  constructor(on) {
    this.on = on;
    this.form = byId("try-form");
    this.text = byId("try-text");
    this.model = byId("try-model");
    this.said = byId("try-said");
    this.button = this.form.querySelector("button");
    this.job = new Watched(byId("try-job"));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.form.requestSubmit();
      }
    });
    this.text.addEventListener("input", () => say(this.said, ""));
  }

  /** Learns which models take a text. */
  async begin() {
    const { models } = await get("/models");
    const names = models.filter(takesText).map((each) => each.model);
    const chosen = this.model.value || DEFAULT;
    fill(this.model, names.map((name) => el("option", { value: name, selected: name === chosen }, name)));
    byId("try-model-field").hidden = names.length < 2;
    return models;
  }

  resume() {
    this.#follow?.start();
  }

  pause() {
    this.#follow?.stop();
  }

  /** Lets go of what was submitted, when the key is forgotten. */
  clear() {
    this.pause();
    this.#follow = null;
    this.job.clear();
    this.text.value = "";
    say(this.said, "");
  }

  async #submit() {
    const body = { text: this.text.value };
    if (this.model.value && this.model.value !== DEFAULT) body.model = this.model.value;
    const written = JSON.stringify(body);
    if (written !== this.#sent) this.#key = newKey();
    this.#sent = written;
    say(this.said, "");
    try {
      const answer = await busy(this.button, () => post("/predict", body, { "Idempotency-Key": this.#key }));
      this.#sent = null;
      this.#watch(answer.body.job_id);
    } catch (error) {
      say(this.said, error.said ?? "Something went wrong on this page.");
      this.on.refused(error);
    }
  }

  #watch(id) {
    this.pause();
    this.job.begin(id);
    this.#follow = new Follow(id, {
      job: (job) => {
        this.job.update(job);
        this.on.job(job);
      },
      state: (state, error) => this.job.note(state, error),
    });
    this.#follow.start();
  }
}

class Watched {
  constructor(node) {
    this.node = node;
  }

  begin(id) {
    this.chip = new Chip();
    this.words = el("p", { role: "status", "aria-label": "How your job stands" }, "Submitted.");
    this.progress = new ProgressBar();
    this.outcome = new Outcome();
    this.chip.update("pending");
    fill(
      this.node,
      el("div", { class: "row between" }, this.chip.node, link(id, `…${shortId(id)}`)),
      this.words,
      this.progress.node,
      this.outcome.node,
    );
    this.node.hidden = false;
  }

  update(job) {
    this.chip.update(job.status);
    say(this.words, sentence(job));
    this.progress.update(job);
    this.outcome.update(job);
  }

  note(state, error) {
    if (state === "lost" || state === "refused") say(this.words, `No news of it just now. ${error?.message ?? ""}`);
  }

  clear() {
    fill(this.node);
    this.node.hidden = true;
  }
}

/** Whether a model takes {"text": …}, by its schema. */
export function takesText(model) {
  const schema = model.input_schema;
  if (schema === null) return true;
  const text = schema.properties?.text;
  return text?.type === "string" && (schema.required ?? []).every((name) => name === "text");
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `dashboard-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
