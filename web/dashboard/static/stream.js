/**
 * Server-Sent Events through fetch(), which can send a key where EventSource can not.
 * It connects again by itself, and says what it has seen last.
 */

import { ApiError, open } from "./api.js";

const RETRY_MS = 1000;
const MOST_MS = 4000;
// The service says something every 10 s: who is silent for longer is gone.
const SILENCE_MS = 25_000;

export class Stream {
  #path;
  #on;
  #stop = null;
  #lastId = null;
  #retry = RETRY_MS;

  /**
   * @param {string} path
   * @param {{event: (name: string, data: any) => void, state: (state: "open"|"lost"|"ended"|"refused", error?: ApiError) => void}} on
   */
  constructor(path, on) {
    this.#path = path;
    this.#on = on;
  }

  start() {
    if (!this.#stop) this.#run((this.#stop = new AbortController())).catch(reportError);
  }

  stop() {
    this.#stop?.abort();
    this.#stop = null;
  }

  async #run(stop) {
    let failures = 0;
    while (!stop.signal.aborted) {
      const turn = new AbortController();
      const end = () => turn.abort();
      stop.signal.addEventListener("abort", end);
      let wait = this.#retry;
      try {
        const more = await this.#connect(turn, stop);
        failures = 0;
        if (!more) return;
      } catch (error) {
        if (stop.signal.aborted) return;
        const refused = error instanceof ApiError && !error.passes;
        this.#on.state(refused ? "refused" : "lost", error);
        if (refused) return;
        failures += 1;
        wait = Math.max(Math.min(RETRY_MS * 2 ** (failures - 1), MOST_MS), (error.retryAfter ?? 0) * 1000);
      } finally {
        stop.signal.removeEventListener("abort", end);
      }
      await pause(wait * (0.8 + 0.4 * Math.random()), stop.signal);
    }
  }

  /** Reads one connection to its end; false where there is nothing more to come. */
  async #connect(turn, stop) {
    const headers = { Accept: "text/event-stream" };
    if (this.#lastId !== null) headers["Last-Event-ID"] = this.#lastId;
    const response = await this.#open(headers, turn, stop);
    if (response.status === 204) {
      this.#on.state("ended");
      return false;
    }
    this.#on.state("open");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new Parser();
    for (;;) {
      const silence = setTimeout(() => turn.abort(), SILENCE_MS);
      let chunk;
      try {
        chunk = await reader.read();
      } catch {
        throw new ApiError(0, "The connection broke off.");
      } finally {
        clearTimeout(silence);
      }
      if (chunk.done) return true;
      for (const event of parser.take(chunk.value)) {
        if (stop.signal.aborted) return false;
        if (event.id !== undefined) this.#lastId = event.id;
        if (event.retry !== undefined) this.#retry = event.retry;
        if (event.data !== undefined) this.#on.event(event.name, JSON.parse(event.data));
      }
    }
  }

  async #open(headers, turn, stop) {
    const silence = setTimeout(() => turn.abort(), SILENCE_MS);
    try {
      return await open(this.#path, { headers, signal: turn.signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError" && !stop.signal.aborted) throw new ApiError(0, "The service does not answer.");
      throw error;
    } finally {
      clearTimeout(silence);
    }
  }
}

/** Parses the format of HTML, section 9.2.6, as far as this service writes it. */
class Parser {
  #rest = "";

  *take(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    for (const block of blocks) yield this.#event(block);
  }

  #event(block) {
    const event = { name: "message" };
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon <= 0) continue;
      const value = line.slice(colon + 1).replace(/^ /, "");
      switch (line.slice(0, colon)) {
        case "event": event.name = value; break;
        case "id": event.id = value; break;
        case "retry": event.retry = Number(value) || RETRY_MS; break;
        case "data": event.data = event.data === undefined ? value : `${event.data}\n${value}`; break;
      }
    }
    return event;
  }
}

/** Waits, but not past an abort. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
