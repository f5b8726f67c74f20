// What a person entered, kept in IndexedDB until the stack has it. The client makes an entry's id, so the stack stores
// it once, however often it is sent; one tab at a time sends.
import { Refused, SignedOut, Unreachable } from "./api.js";
import { alone, kept } from "./kept.js";
import { Store } from "./store.js";

/** `waiting`: entries to send, oldest first. `refused`: entries that the stack does not take, with `why`. */
export const outbox = new Store({ waiting: [], refused: [], kept: true });

const FIRST_WAIT = 2000; // ms
const LONGEST_WAIT = 60000; // ms
const others = new BroadcastChannel("bintally.outbox");
const memory = new Map(); // where a browser stores nothing
let person = null;
let send = null;
let finished = () => {};
let wait = FIRST_WAIT;
let timer = 0;

/** Sends what waits for this person. `post(entry)` raises as `ask` does; `done(entry, answer)` is told of each. */
export async function open(name, post, done) {
  [person, send, finished] = [name, post, done];
  await read();
  flush();
}

/** Stops sending; what waits is kept. */
export function close() {
  clearTimeout(timer);
  person = send = null;
  outbox.set({ waiting: [], refused: [] });
}

/** Keeps an entry: {id, site, bin, image_version, …}. It is stored when this returns; then it is sent. */
export async function keep(entry) {
  await write({ ...entry, person, made: Date.now() });
  await read();
  flush();
}

/** Takes an entry out again; false when it was sent before. */
export function withdraw(id) {
  return alone("bintally.send", async () => {
    const found = outbox.value.waiting.some((entry) => entry.id === id) && (await has(id));
    if (found) await forget(id);
    return found;
  });
}

/** Removes an entry that the stack did not take. */
export const dismiss = forget;

/** Sends all that waits, in order, until the stack cannot be reached. An entry at which it fails holds up no other. */
export async function flush() {
  clearTimeout(timer);
  const sender = send;
  if (!sender) return;
  const left = await alone("bintally.send", async () => {
    let failed = false;
    await read();
    for (const entry of outbox.value.waiting) {
      if (send !== sender) return false;
      try {
        const { person: _, made, why, ...body } = entry;
        const answer = await sender(body);
        await forget(entry.id);
        finished(entry, answer);
      } catch (problem) {
        if (problem instanceof SignedOut) return false;
        if (problem instanceof Unreachable) {
          if (!problem.failed) return true;
          failed = true;
          continue;
        }
        if (!(problem instanceof Refused)) throw problem;
        await write({ ...entry, why: problem.message, code: problem.code });
        await read();
        finished(entry, null, problem);
      }
    }
    if (!failed) wait = FIRST_WAIT;
    return failed;
  });
  if (left) {
    timer = setTimeout(flush, wait);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

addEventListener("online", flush);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && flush());
others.onmessage = read;

/** The bins of a site about which something waits to be sent, from any tab. */
export async function unsent(site) {
  await read();
  return outbox.value.waiting.filter((entry) => entry.site === site).map((entry) => entry.bin);
}

async function read() {
  const stored = (await kept("entries", "readonly", (store) => store.getAll())) ?? [];
  const all = [...stored, ...memory.values()].filter((each) => each.person === person);
  all.sort((one, other) => one.made - other.made);
  outbox.set({
    waiting: all.filter((each) => !each.why),
    refused: all.filter((each) => each.why),
    kept: memory.size === 0,
  });
}

async function write(entry) {
  const written = await kept("entries", "readwrite", (store) => store.put(entry));
  if (written === undefined) memory.set(entry.id, entry);
  others.postMessage(entry.id);
}

async function has(id) {
  return memory.has(id) || (await kept("entries", "readonly", (store) => store.getKey(id))) !== undefined;
}

async function forget(id) {
  memory.delete(id);
  await kept("entries", "readwrite", (store) => store.delete(id));
  others.postMessage(id);
  await read();
}
