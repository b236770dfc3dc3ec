/** Asks the service, and says in one way what went wrong. */

import { headers } from "./session.js";

// The service answers within 10 s, and waits no longer for its database.
const MOST_MS = 20_000;

/** An answer that is an error, or none at all (status 0). */
export class ApiError extends Error {
  constructor(status, detail, faults = [], retryAfter = null) {
    super(detail);
    this.status = status;
    this.faults = faults;
    this.retryAfter = retryAfter;
  }

  /** Whether it may be otherwise in a moment. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** What to tell a person, with each field at fault. */
  get said() {
    return [this.message, ...this.faults.map(said)].join(" ");
  }
}

function said(fault) {
  const place = fault.parameter ?? fault.header ?? (fault.pointer ?? "").slice(1);
  return place ? `${place}: ${fault.detail}.` : `${fault.detail}.`;
}

/** Sends a request, and gives the response where it is a good one. */
export async function open(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      signal: AbortSignal.timeout(MOST_MS),
      ...options,
      headers: { ...headers(), ...options.headers },
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, error.name === "TimeoutError" ? "The service does not answer." : "The service can not be reached.");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // What stands between us and the service may answer in its own words.
  }
  const detail = problem.detail ?? `The service answered ${response.status}.`;
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  return new ApiError(response.status, detail, problem.errors ?? [], retryAfter);
}

export async function get(path, options = {}) {
  return read(await open(path, options));
}

/** Posts JSON; gives the status and the body of the answer. */
export async function post(path, body, extra = {}) {
  const response = await open(path, {
    method: "POST",
    headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...extra },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return { status: response.status, body: await read(response) };
}

async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The answer of the service broke off.");
  }
}
