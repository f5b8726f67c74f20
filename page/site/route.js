// Addresses within the page: #/<page>/<site>/<rest…>, each part percent-encoded.
import { Store } from "./store.js";

export const route = new Store(read());

/** The address of a page, for links. */
export function to(page, ...parts) {
  return "#/" + [page, ...parts].map(encodeURIComponent).join("/");
}

/** Goes to a page; `replace` leaves no trace of the one before. */
export function go(page, ...parts) {
  location.hash = to(page, ...parts);
}

function read() {
  const [page = "", site = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  return { page, site, rest };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

addEventListener("hashchange", () => route.set(read()));
