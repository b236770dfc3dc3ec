/** Starts the page, and shows what its address names. */

import { ApiError, open } from "./api.js";
import { setNow } from "./clock.js";
import { busy, byId, el, fill, say } from "./dom.js";
import { exact } from "./format.js";
import { JobView } from "./job.js";
import { JobList } from "./jobs.js";
import { State } from "./overview.js";
import { Plots } from "./plots.js";
import * as session from "./session.js";
import { Stream } from "./stream.js";
import * as theme from "./theme.js";
import { Try } from "./try.js";

const LINK = {
  connecting: "Connecting",
  live: "Live",
  yours: "Your jobs",
  away: "Database away",
  gone: "Service away",
  full: "Service busy",
  locked: "Key wanted",
};
const BAD_KEY = "This key is not valid, or not any more.";
const TITLE = "jobrunner";
// What only operators are told of.
const MAY_OVERSEE = /rel="monitor"/;

class Page {
  #link = "connecting";
  #seen = null;
  #isOperator = true;
  #hasModels = false;
  #scroll = 0;

  constructor() {
    this.notice = el("p", { class: "notice bad" });
    this.state = new State();
    this.plots = new Plots();
    this.jobs = new JobList({
      refused: (error) => this.#refused(error),
      found: () => { if (!this.#isOperator) this.#setLink("yours"); },
      filtered: (filters) => this.#goTo(filters),
    });
    this.job = new JobView((error) => this.#refused(error));
    this.try = new Try({
      refused: (error) => this.#refused(error),
      job: (job) => this.jobs.note(job),
    });
    this.stream = new Stream("/overview/events", {
      event: (name, data) => this.#hear(name, data),
      state: (state, error) => this.#heed(state, error),
    });
  }

  start() {
    theme.start();
    window.addEventListener("hashchange", () => this.#route(true));
    // Who does not look costs nothing.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.#resume()));
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#unlock(byId("key").value.trim());
    });
    byId("forget-key").addEventListener("click", () => this.#lock(""));
    if (session.hasKey()) this.#enter();
    else this.#lock("");
  }

  // Keys

  async #unlock(key) {
    say(byId("key-said"), "");
    // No header can carry anything else.
    if (!/^[\x21-\x7e]+$/.test(key)) {
      say(byId("key-said"), BAD_KEY);
      return;
    }
    session.use(key);
    try {
      const answer = await busy(byId("key-form").querySelector("button"), () => open("/models"));
      session.beOperator(MAY_OVERSEE.test(answer.headers.get("Link") ?? ""));
      byId("key").value = "";
      this.#enter();
      // The field that had it is gone.
      byId("main").focus({ preventScroll: true });
    } catch (error) {
      session.forget();
      say(byId("key-said"), error.status === 401 ? BAD_KEY : error.said);
    }
  }

  #lock(said) {
    this.#pause();
    session.forget();
    this.#setLink("locked");
    this.state.clear();
    this.plots.hide();
    this.jobs.clear();
    this.job.close();
    this.try.clear();
    this.#isOperator = true;
    this.#hasModels = false;
    byId("overview-view").hidden = byId("job-view").hidden = byId("forget-key").hidden = true;
    byId("key-wanted").hidden = false;
    say(byId("key-said"), said);
    byId("key").focus();
  }

  #enter() {
    byId("key-wanted").hidden = true;
    byId("forget-key").hidden = !session.isKeyNeeded;
    this.#setLink("connecting");
    if (!session.isOperator()) this.#beClient();
    this.#route(false);
    this.#resume();
  }

  get #isLocked() {
    return !session.hasKey() || !byId("key-wanted").hidden;
  }

  // Where we are

  #route(moved) {
    if (this.#isLocked) return;
    const address = location.hash.replace(/^#\/?/, "");
    const found = /^jobs\/([^/?]+)$/.exec(address);
    const wasJob = !byId("job-view").hidden;
    if (found) {
      if (!wasJob) this.#scroll = window.scrollY;
      this.jobs.stop();
      // A browser has but six connections to a host, whatever its windows are: none unseen.
      this.try.pause();
      byId("overview-view").hidden = true;
      byId("job-view").hidden = false;
      this.job.show(decoded(found[1]));
      window.scrollTo(0, 0);
      if (moved) this.job.focus();
      return;
    }
    const left = this.job.id;
    this.job.close();
    byId("job-view").hidden = true;
    byId("overview-view").hidden = false;
    document.title = TITLE;
    this.jobs.filter(Object.fromEntries(new URLSearchParams(address.replace(/^\?/, ""))));
    this.jobs.start();
    this.try.resume();
    if (moved && wasJob) {
      window.scrollTo(0, this.#scroll);
      document.querySelector(`#jobs a[title="${CSS.escape(left ?? "")}"]`)?.focus({ preventScroll: true });
    }
  }

  #goTo(filters) {
    const given = Object.entries(filters).filter(([, value]) => value);
    const query = new URLSearchParams(given).toString();
    history.replaceState(null, "", query ? `#/?${query}` : "#/");
    this.#route(false);
  }

  // What is told

  #resume() {
    if (this.#isLocked || document.hidden) return;
    if (this.#isOperator) this.stream.start();
    if (!byId("job-view").hidden) this.job.resume();
    else {
      this.jobs.start();
      this.try.resume();
    }
    if (!this.#hasModels) this.#readModels();
  }

  #pause() {
    this.stream.stop();
    this.jobs.stop();
    this.job.pause();
    this.try.pause();
  }

  async #readModels() {
    this.#hasModels = true;
    try {
      this.jobs.offer((await this.try.begin()).map((each) => each.model));
    } catch (error) {
      this.#hasModels = false;
      this.#refused(error);
    }
  }

  #hear(name, data) {
    if (name === "away") {
      this.#setLink("away", data.detail);
      return;
    }
    if (name === "overview") {
      setNow(data.now);
      this.state.show(data);
      this.jobs.offer(data.queues.map((queue) => queue.model));
      this.#seen = new Date(data.now);
      this.#setLink("live");
      if (!this.#hasModels) this.#readModels();
    } else if (name === "jobs") this.jobs.take(data);
    else if (name === "history") this.plots.show(data);
  }

  #heed(state, error) {
    if (state === "lost") {
      this.#refused(error);
      this.jobs.deaf();
    } else if (state === "refused") {
      if (error.status === 403) this.#beClient();
      else this.#refused(error);
    }
  }

  /** An ordinary client sees its own jobs, and is told what it does not see. */
  #beClient() {
    this.#isOperator = false;
    this.plots.hide();
    this.state.close();
    this.jobs.deaf();
    this.#setLink("yours");
  }

  #refused(error) {
    if (error === null) {
      if (!this.#isOperator) this.#setLink("yours");
      return;
    }
    if (!(error instanceof ApiError)) {
      reportError(error);
      return;
    }
    if (error.status === 401) this.#lock(BAD_KEY);
    else if (error.status === 503 && /too many/i.test(error.message)) this.#setLink("full", error.message);
    else if (error.status >= 500) this.#setLink("away", error.message);
    else if (error.status === 0) this.#setLink("gone", error.message);
  }

  #setLink(link, detail = "") {
    this.#link = link;
    const node = byId("link-state");
    node.dataset.link = link;
    say(node, LINK[link]);
    const isBad = link === "away" || link === "gone" || link === "full";
    document.body.classList.toggle("stale", isBad);
    if (!isBad) {
      fill(byId("notices"));
      return;
    }
    const since = this.#seen ? ` What you see is of ${exact(this.#seen)}.` : "";
    say(this.notice, `${detail}${since} This page goes on by itself.`);
    fill(byId("notices"), this.notice);
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

new Page().start();
