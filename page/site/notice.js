// One line for the person: what went wrong, or what was done.
import { html } from "./html.js";
import { Store, useStore } from "./store.js";
import { texts } from "./texts.js";

const notice = new Store({ text: "", kind: "" });

/** Shows what went wrong: an Error, or a line. It stays until it is dismissed or replaced. */
export function complain(problem) {
  notice.set({ text: problem instanceof Error ? problem.message : problem, kind: "problem" });
}

/** Shows what was done. */
export function tell(text) {
  notice.set({ text, kind: "done" });
}

export function hush() {
  notice.set({ text: "", kind: "" });
}

export function Notice() {
  const { text, kind } = useStore(notice);
  return html`<div class="notices" role="status" aria-live="polite">
    ${text &&
    html`<p class="notice ${kind}">
      <span>${text}</span>
      <button type="button" class="quiet" onClick=${hush}>${texts.dismiss}</button>
    </p>`}
  </div>`;
}
