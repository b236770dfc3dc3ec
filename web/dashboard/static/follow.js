/** Follows one job until it is final: its stream, and while it waits also its place. */

import { get } from "./api.js";
import { Stream } from "./stream.js";

// A job that waits has no news of its own while others pass before it.
const PLACE_MS = 2000;

export const isFinal = (job) => job.finished_at !== null;

export class Follow {
  #id;
  #on;
  #stream;
  #timer = null;
  #job = null;

  /**
   * @param {string} id
   * @param {{job: (job: any) => void, state: (state: string, error?: Error) => void}} on
   */
  constructor(id, on) {
    this.#id = id;
    this.#on = on;
    this.#stream = new Stream(`/jobs/${encodeURIComponent(id)}/events`, {
      event: (_, job) => this.#take(job),
      state: (state, error) => on.state(state, error),
    });
  }

  start() {
    if (this.#job && isFinal(this.#job)) return;
    this.#stream.start();
  }

  stop() {
    this.#stream.stop();
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #take(job) {
    this.#job = job;
    this.#on.job(job);
    if (isFinal(job)) this.stop();
    else if (job.status === "pending") this.#lookSoon();
  }

  #lookSoon() {
    this.#timer ??= setTimeout(async () => {
      let job = null;
      try {
        job = await get(`/jobs/${encodeURIComponent(this.#id)}`);
      } catch {
        // The stream says what is wrong.
      }
      // Stopped meanwhile.
      if (this.#timer === null) return;
      this.#timer = null;
      if (this.#job.status !== "pending") return;
      if (job?.status === "pending") this.#take(job);
      else this.#lookSoon();
    }, PLACE_MS);
  }
}
