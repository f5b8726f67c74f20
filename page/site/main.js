// The shell: signs in, chooses page and site, and shows one page.
import { html, render, useEffect, useState } from "./html.js";
import { complain, hush, Notice } from "./notice.js";
import { outbox } from "./outbox.js";
import { home, pages } from "./pages.js";
import { goOn, startSending, stopWork } from "./queue.js";
import { go, route, to } from "./route.js";
import { ask, may, session, signOut, start } from "./session.js";
import { SignIn, SignInAgain } from "./signin.js";
import { useStore } from "./store.js";
import { texts } from "./texts.js";

const SITE = "bintally.site";
const THEME = "bintally.theme";
const THEMES = { system: "light dark", light: "light", dark: "dark" };

function App() {
  const { started, me, expired } = useStore(session);
  if (!started) return html`<main class="entrance"><p class="brand" role="status"><${Mark} />${texts.loading}</p></main>`;
  if (!me) return html`<${Entrance} />`;
  return html`<${Shell} key=${me.name} me=${me} covered=${expired} />${expired && html`<${SignInAgain} leave=${leave} />`}`;
}

function Entrance() {
  const { problem } = useStore(session);
  return html`<main class="entrance">
    <p class="brand"><${Mark} />Bintally</p>
    ${problem &&
    html`<p class="problem" role="alert">${problem.message}</p>
      <button type="button" onClick=${start}>${texts.startAgain}</button>`}
    ${!problem && html`<${SignIn} />`}
  </main>`;
}

function Mark() {
  return html`<img src=${new URL("icon.svg", import.meta.url).pathname} alt="" width="32" height="32" />`;
}

function Shell({ me, covered }) {
  const { page, site, rest } = useStore(route);
  const [sites, setSites] = useState(null);
  useEffect(() => {
    startSending(me.name);
    ask("/api/sites").then((answer) => setSites(answer.sites.map((each) => each.site)), complain);
  }, []);
  useEffect(() => {
    if (!covered) goOn();
  }, [covered]);
  const allowed = pages.filter((each) => may(each.role));
  const shown = allowed.find((each) => each.name === (page || home[me.role])) ?? allowed[0];
  const chosen = sites?.includes(site) ? site : sites?.find((each) => each === localStorage.getItem(SITE)) ?? sites?.[0];
  useEffect(() => {
    if (chosen) localStorage.setItem(SITE, chosen);
    document.title = shown ? `${shown.title} · Bintally` : "Bintally";
    hush();
  }, [chosen, shown]);

  return html`<div class="shell" inert=${covered}>
    <a class="skip" href="#main" onClick=${toMain}>${texts.skipToContent}</a>
    <header class="bar">
      <span class="brand"><${Mark} /><span>Bintally</span></span>
      <nav aria-label=${texts.pages}><${Links} pages=${allowed} shown=${shown} site=${chosen} /></nav>
      <details class="menu pages" onClick=${closeOnLink} onKeyDown=${closeOnEscape}>
        <summary aria-label=${texts.pages}>${shown?.title}</summary>
        <nav aria-label=${texts.pages}><${Links} pages=${allowed} shown=${shown} site=${chosen} /></nav>
      </details>
      ${sites?.length > 1 &&
      html`<label class="site"><span>${texts.site}</span>
        <select value=${chosen} onChange=${(event) => go(shown.name, event.target.value)}>
          ${sites.map((each) => html`<option value=${each}>${each}</option>`)}
        </select>
      </label>`}
      ${sites?.length === 1 && html`<span class="site">${chosen}</span>`}
      <${Account} me=${me} />
    </header>
    <${Notice} />
    <main id="main" tabindex="-1" class=${shown?.name}>
      ${!shown
        ? html`<p class="empty">${texts.nothingForRole}</p>`
        : shown.everywhere || chosen
          ? html`<${shown.component} key=${chosen} me=${me} site=${chosen} rest=${rest} />`
          : html`<p class="empty" role="status">${sites ? texts.noSites : texts.loading}</p>`}
    </main>
  </div>`;
}

/** In the bar, or in a menu where it is too narrow for them. */
function Links({ pages, shown, site }) {
  return pages
    .filter((each) => !each.hidden)
    .map(
      (each) => html`<a href=${each.everywhere ? to(each.name) : to(each.name, site ?? "")}
        aria-current=${each === shown ? "page" : null}>${each.title}</a>`,
    );
}

function closeOnLink(event) {
  if (event.target.closest("a")) event.currentTarget.open = false;
}

function toMain(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Account({ me }) {
  const [theme, setTheme] = useState(localStorage.getItem(THEME) ?? "system");
  useEffect(() => {
    localStorage.setItem(THEME, theme);
    document.documentElement.style.colorScheme = THEMES[theme] ?? THEMES.system;
  }, [theme]);
  return html`<details class="menu" onKeyDown=${closeOnEscape}>
    <summary aria-label=${texts.account(me.name)}><span aria-hidden="true">${me.name}</span></summary>
    <div>
      <p>${me.name}<br /><span class="quiet">${texts.roles[me.role] ?? me.role}</span></p>
      <label>${texts.theme}
        <select value=${theme} onChange=${(event) => setTheme(event.target.value)}>
          ${Object.keys(THEMES).map((each) => html`<option value=${each}>${texts.themes[each]}</option>`)}
        </select>
      </label>
      <button type="button" onClick=${leave}>${texts.signOut}</button>
    </div>
  </details>`;
}

/** Stops the work before the session: what waits stays under the name of who entered it. */
function leave() {
  const unsent = outbox.value.waiting.length;
  if (unsent && !confirm(texts.unsent(unsent))) return;
  stopWork();
  signOut();
}

function closeOnEscape(event) {
  if (event.key === "Escape") event.currentTarget.open = false;
}

document.documentElement.style.colorScheme = THEMES[localStorage.getItem(THEME)] ?? THEMES.system;
render(html`<${App} />`, document.body);
start();
