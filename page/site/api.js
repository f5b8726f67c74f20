// Requests to the stack's own API. Three kinds of failure: Refused (the same request fails again), Unreachable (try
// later), SignedOut (sign in, then try again).
import { texts } from "./texts.js";

export class Refused extends Error {
  /** `code` is for programs, `message` for people. */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export class Unreachable extends Error {
  /** `failed`: the stack answered that it failed; another request may succeed meanwhile. */
  constructor(message, failed = false) {
    super(message);
    this.failed = failed;
  }
}

export class SignedOut extends Error {}

const PATIENCE = 20000; // ms; the API answers within 30 s, and a person has gone by then
const LATER = [408, 425, 429];

/** The answer to GET, or to POST with a body: an object, or a file, which is sent byte by byte. Raises Refused or Unreachable. */
export async function request(path, { body, token, keepalive = false } = {}) {
  let answer, said;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: {
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(body !== undefined && { "Content-Type": body instanceof Blob ? "application/octet-stream" : "application/json" }),
      },
      body: body === undefined || body instanceof Blob ? body : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      keepalive,
      signal: AbortSignal.timeout(PATIENCE),
    });
    said = await answer.text();
  } catch {
    throw new Unreachable(texts.unreachable);
  }
  const found = parsed(said);
  if (answer.ok && found) return found;
  if (answer.status >= 500 || LATER.includes(answer.status) || answer.ok) {
    throw new Unreachable(found?.detail ?? texts.busy(answer.status), answer.status >= 500);
  }
  // Ours has `code` and `detail`; the gateway's own errors have `message` alone.
  const message = found?.detail ?? found?.message ?? texts.refused(answer.status);
  throw new Refused(answer.status, found?.code ?? "GATEWAY", message);
}

function parsed(text) {
  try {
    const found = JSON.parse(text);
    return typeof found === "object" ? found : null;
  } catch {
    return null;
  }
}

/** An id in a path: as it is, or `~` and base64url of its UTF-8. */
export function encodeId(text) {
  if (/^[A-Za-z0-9_.-]+$/.test(text) && text !== "." && text !== "..") return text;
  const bytes = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return "~" + btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
