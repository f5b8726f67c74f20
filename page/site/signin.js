// The form that signs a person in: for the first time, or again over the work that they were at.
import { Refused } from "./api.js";
import { html, useState } from "./html.js";
import { session, signIn } from "./session.js";
import { useStore } from "./store.js";
import { texts } from "./texts.js";

const t = texts.signIn;

/** Over the page, for the person whose session has ended: what they were at stays below it. `leave` signs them out. */
export function SignInAgain({ leave }) {
  const { me } = useStore(session);
  return html`<div class="over" role="dialog" aria-modal="true" aria-labelledby="sign-in-title">
    <${SignIn} name=${me.name} leave=${leave} again />
  </div>`;
}

export function SignIn({ name = "", again = false, leave }) {
  const [problem, setProblem] = useState("");
  const [fresh, setFresh] = useState(false);
  const [busy, setBusy] = useState(false);

  async function submit(event) {
    event.preventDefault();
    const given = new FormData(event.target);
    setBusy(true);
    setProblem("");
    try {
      await signIn(given.get("name") ?? name, given.get("password"), given.get("new"));
    } catch (failure) {
      const choose = failure instanceof Refused && failure.code === "NEW_PASSWORD"; // its text is for programs
      if (choose) setFresh(true);
      setProblem(choose ? t.choose : failure.message);
    } finally {
      setBusy(false);
    }
  }

  return html`<form class="card sign-in" onSubmit=${submit}>
    <h1 id="sign-in-title">${again ? t.again : t.title}</h1>
    <p class="quiet">${again ? t.nothingLost : t.lead}</p>
    <label>${t.name}
      <input name="name" autocomplete="username" autocapitalize="none" spellcheck="false" required
        ref=${again ? null : focus} disabled=${again} defaultValue=${name} />
    </label>
    <label>${t.password}
      <input name="password" type="password" autocomplete="current-password" required ref=${again ? focus : null} />
    </label>
    ${fresh &&
    html`<label>${t.newPassword}
      <input name="new" type="password" autocomplete="new-password" minlength="12" required ref=${focus} />
    </label>`}
    <p class="problem" role="alert">${problem}</p>
    <button class="primary" disabled=${busy}>${busy ? t.busy : t.submit}</button>
    ${again && html`<button type="button" class="quiet" onClick=${leave}>${t.other}</button>`}
  </form>`;
}

/** A browser heeds `autofocus` in the first page alone, not in what is inserted later. */
function focus(field) {
  field?.focus();
}
