// Who is signed in. The token is in memory alone; what renews it is in a cookie that no script can read.
import { Refused, request, SignedOut, Unreachable } from "./api.js";
import { Store } from "./store.js";
import { texts } from "./texts.js";

const SIGNED_IN = "bintally.signed-in"; // this browser may have a cookie that renews a session
const MARGIN = 60000; // ms before a token ends from which on it is renewed first

/**
 * `me`: {name, role, sites}, null until somebody signs in. `expired`: the same person must sign in again. `problem`: why
 * nobody knows whether somebody is signed in.
 */
export const session = new Store({ started: false, me: null, expired: false, problem: null });
export const ROLES = ["viewer", "counter", "manager"];

let token = "";
let ends = 0;
let renewing = null;

/** Whether the person may do what this role may. */
export function may(role) {
  return ROLES.indexOf(session.value.me?.role) >= ROLES.indexOf(role);
}

/** Renews the session of before a reload, if there was one. */
export async function start() {
  session.set({ started: false, problem: null });
  try {
    if (localStorage.getItem(SIGNED_IN) && (await renewed())) session.set({ me: await ask("/api/me") });
  } catch (problem) {
    session.set({ problem });
  }
  session.set({ started: true });
}

/** Signs a person in. Raises Refused (its code is NEW_PASSWORD where `newPassword` is needed) or Unreachable. */
export async function signIn(name, password, newPassword) {
  const body = { name, password, ...(newPassword && { new_password: newPassword }) };
  const answer = await request("/session", { body });
  localStorage.setItem(SIGNED_IN, "yes");
  const me = await request("/api/me", { token: answer.token });
  keep(answer); // not before `me`: nothing is sent with a token of one person and the name of another
  session.set({ me, expired: false });
}

/** Forgets the session here and, if it can be reached, in the stack. */
export function signOut() {
  token = "";
  localStorage.removeItem(SIGNED_IN);
  session.set({ me: null, expired: false });
  return request("/session", { body: { sign_out: true }, keepalive: true }).catch(() => {});
}

/** The answer to a request of the signed-in person, never sent for another. Raises Refused, Unreachable or SignedOut. */
export async function ask(path, body, options) {
  const name = session.value.me?.name;
  if (Date.now() > ends - MARGIN) await renewed().catch(unlessSignedOut);
  for (const last of [false, true]) {
    if (session.value.me?.name !== name) throw new SignedOut(texts.signedOut);
    try {
      return await request(path, { body, token, ...options });
    } catch (problem) {
      if (!(problem instanceof Refused && problem.status === 401)) throw problem;
      if (last || !(await renewed())) break;
    }
  }
  if (session.value.me && session.value.me.name === name) session.set({ expired: true });
  throw new SignedOut(texts.signedOut);
}

/** Whether there is a new token. Raises Unreachable, or SignedOut where another person is signed in. */
function renewed() {
  renewing ??= renew().finally(() => (renewing = null));
  return renewing;
}

async function renew() {
  const name = session.value.me?.name;
  let answer;
  try {
    answer = await request("/session", { body: { refresh: true } });
  } catch (problem) {
    if (problem instanceof Unreachable) throw problem;
    return false;
  }
  // Another tab may have signed another person in: the token is theirs, and what waits for it here is not.
  const other = name && nameIn(answer.token) !== name;
  if (other && session.value.me) location.reload();
  if (other || session.value.me?.name !== name) throw new SignedOut(texts.signedOut);
  keep(answer);
  return true;
}

function unlessSignedOut(problem) {
  if (problem instanceof SignedOut) throw problem;
}

function keep(answer) {
  token = answer.token;
  ends = Date.now() + answer.expires_in * 1000;
}

function nameIn(idToken) {
  return JSON.parse(atob(idToken.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")))["cognito:username"];
}
