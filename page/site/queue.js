// The queue: one photograph after the other, counted blind. What is entered goes to the outbox, and the next photograph
// is there already.
import { encodeId } from "./api.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { Keys } from "./keys.js";
import { Line } from "./line.js";
import { complain, hush, tell } from "./notice.js";
import * as outbox from "./outbox.js";
import { keepFocus, Photo, View } from "./photo.js";
import { ask, session } from "./session.js";
import { Store, useStore } from "./store.js";
import { texts } from "./texts.js";

const t = texts.queue;
const DIGITS = 9; // the largest quantity is 999,999,999
const MANY = 10000; // a quantity of so many items is entered by a second Enter
const DRAFT = "bintally.draft";
const PROGRESS = "bintally.progress";
const SINGLE = "bintally.single-keys"; // "off", or not there
const WAIT_FOR_NEW = 15000; // ms between looks at an empty queue

/** `on`: a letter, sign or digit acts without the focus in a field (WCAG 2.1.4). */
const single = new Store({ on: localStorage.getItem(SINGLE) !== "off" });

function switchSingle(on) {
  if (on) localStorage.removeItem(SINGLE);
  else localStorage.setItem(SINGLE, "off");
  single.set({ on });
}

/** The work of one person at one site, which goes on when they come back from another page. */
let work = null;

function workOf(person, site) {
  if (work?.person !== person || work.site !== site) {
    work?.line.leave();
    const line = new Line(site);
    line.lost = (claim, problem) => complain(t.takenAway(claim.bin, problem.message));
    work = { person, site, line, view: new View(), entered: [], progress: new Store(progressOf(person, site)) };
    line.start();
  }
  return work;
}

/** Sends what a person entered, now and from now on. */
export function startSending(person) {
  outbox.open(person, ({ site, ...body }) => ask(`/api/sites/${encodeId(site)}/recounts`, body), sent);
}

/** Goes on after a pause: sends what waits, and claims what is missing. */
export function goOn() {
  outbox.flush();
  work?.line.fill();
}

/** Gives back what the person had claimed. */
export function stopWork() {
  work?.line.leave();
  work = null;
  outbox.close();
}

function sent(entry, answer, problem) {
  if (work?.site === entry.site) work.line.sent(entry.bin);
  if (problem) complain(t.takenAway(entry.bin, problem.message));
  else if (answer.late) tell(t.late(entry.bin));
}

export function Queue({ me, site }) {
  const { line, view, progress, entered } = workOf(me.name, site);
  const { ready, looking, empty, problem } = useStore(line.state);
  const done = useStore(progress);
  const claim = ready[0];

  useEffect(() => {
    if (!empty || ready.length) return;
    const timer = setInterval(() => line.fill(), WAIT_FOR_NEW);
    return () => clearInterval(timer);
  }, [empty, ready.length]);

  async function undo() {
    const last = entered.at(-1);
    if (!last) return complain(t.nothingToUndo);
    try {
      const unsent = await outbox.withdraw(last.entry.id);
      if (!unsent) await ask(`/api/sites/${encodeId(site)}/undos`, { bin: last.entry.bin });
    } catch (failure) {
      return complain(failure);
    }
    entered.pop();
    line.takeBack(last.claim);
    advance(progress, { counted: -1 });
    tell(t.undone(last.entry.bin));
  }

  async function enter(said) {
    performance.mark("entered");
    const entry = { id: crypto.randomUUID(), site, bin: claim.bin, image_version: claim.image_version, ...said };
    await outbox.keep(entry);
    entered.push({ entry, claim });
    sessionStorage.removeItem(DRAFT);
    hush();
    view.reset();
    line.pass();
    advance(progress, { counted: 1 });
  }

  function skip() {
    hush();
    view.reset();
    line.skip();
    advance(progress, { skipped: 1 });
  }

  return html`
    <${Outbox} />
    ${claim
      ? html`<${Count} key=${`${claim.bin} ${claim.image_version}`} claim=${claim} following=${ready[1]} view=${view}
          enter=${enter} skip=${skip} undo=${undo} reload=${() => line.reload(claim).catch(complain)} done=${done} />`
      : html`<${Nothing} line=${line} looking=${looking} empty=${empty} problem=${problem} undo=${undo} done=${done} />`}
  `;
}

function Count({ claim, view, enter, skip, undo, reload, done }) {
  const [text, setText] = useState(() => draftOf(claim));
  const [busy, setBusy] = useState(false);
  const began = useRef(false); // the same at once: the next key may come before the page is drawn again
  const [hint, setHint] = useState({}); // what to say, and of which text
  const { expired } = useStore(session);
  const said = useRef({});
  const field = useRef();
  const sure = useRef(null); // the text that a second Enter enters
  const keys = useMemo(() => new Keys(), []);
  const before = useRef({}); // what a scanner's keys changed
  const typed = useRef(text); // the next key or a reload may come before the page is drawn again

  useLayoutEffect(() => {
    field.current.focus({ preventScroll: true });
    measure();
    return () => keys.cancel();
  }, []);
  useEffect(() => {
    if (!expired) field.current.focus({ preventScroll: true }); // back from signing in again
  }, [expired]);

  function change(next) {
    typed.current = next;
    sure.current = null;
    sessionStorage.setItem(DRAFT, JSON.stringify([claim.bin, claim.image_version, next]));
    setText(next);
  }

  /** A text that is no number changes nothing. */
  function type(event) {
    const next = event.target.value;
    if (/^[0-9]*$/.test(next) && next.length <= DIGITS) change(next);
    else event.target.value = typed.current;
  }
  const erase = () => change(typed.current.slice(0, -1));
  const add = (digit) => change((typed.current + digit).slice(0, DIGITS));

  async function once(what) {
    if (began.current) return;
    began.current = true;
    setBusy(true);
    await enter({ ...what, ...said.current });
  }

  function submit(event) {
    event?.preventDefault();
    const [text, quantity] = [typed.current, Number(typed.current)];
    if (!text) return setHint({ text, line: t.typeFirst });
    if (quantity < MANY || sure.current === text) return once({ quantity });
    sure.current = text;
    setHint({ text, line: t.sure(quantity) });
  }

  /** Takes back what a scanner's keys did before they were many enough to tell. */
  function drop() {
    view.set(before.current.view);
    if (typed.current !== before.current.text) change(before.current.text);
    field.current.value = typed.current;
    keys.later(() => complain(t.scanned(keys.text.trim().slice(0, 40))));
  }

  const actions = {
    s: skip,
    c: () => once({ outcome: "CANNOT_COUNT" }),
    t: () => once({ outcome: "RETAKE" }),
    u: undo,
  };

  // Before the page is drawn: a key pressed as soon as the photograph is seen counts.
  useLayoutEffect(() => {
    function key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      if (field.current.closest("[inert]")) return; // what is typed now is a password
      const inField = event.target === field.current;
      if (!inField && event.target.closest?.("input:not([type=checkbox]), textarea, select, [role=dialog]")) return;
      if (event.repeat && (event.key === "Enter" || event.key.toLowerCase() in actions)) return event.preventDefault();
      if (!event.repeat && keys.note(event)) before.current = { text: typed.current, view: view.value };
      if (keys.scanned && !event.repeat) {
        drop();
        return event.preventDefault();
      }
      if (keys.text.endsWith("\n\n")) return event.preventDefault(); // a scanner's, or a worn key
      if (event.key.length === 1 && !single.value.on) return;
      if (/^[0-9]$/.test(event.key) && !inField) {
        field.current.focus();
        add(event.key);
      } else if (event.key === "Backspace" && !inField) erase();
      else if (event.key === "Enter" && !inField && !event.target.closest?.("button, a, summary")) submit();
      else if (event.key.toLowerCase() in actions) {
        if (keys.text.length === 1) keys.later(actions[event.key.toLowerCase()]);
      } else if (!view.key(event.key)) return;
      event.preventDefault();
    }
    document.addEventListener("keydown", key);
    return () => document.removeEventListener("keydown", key);
  });

  return html`
    <${Photo} image=${claim.image} alt=${t.photograph(claim.bin)} view=${view}>
      ${!claim.image &&
      html`<p class="absent">${t.noPhotograph} <button type="button" onClick=${reload}>${texts.startAgain}</button></p>`}
    <//>
    <form class="panel" onSubmit=${submit} autocomplete="off">
      <div class="of">
        <h1><span class="quiet">${t.bin}</span> <span class="id">${claim.bin}</span></h1>
        <p class="quiet">${t.taken(claim.captured_at)}</p>
      </div>
      <label class="number"><span>${t.items}</span>
        <input ref=${field} value=${text} inputmode="none" aria-describedby="hint" enterkeyhint="next" onInput=${type} />
      </label>
      <p id="hint" class="problem" role="status">${hint.text === text && hint.line}</p>
      <div class="keypad">
        ${[..."1234567890"].map(
          (digit) => html`<button type="button" class=${`digit d${digit}`} onMouseDown=${keepFocus}
            onClick=${() => add(digit)}>${digit}</button>`,
        )}
        <button type="button" class="erase" aria-label=${t.erase} onMouseDown=${keepFocus} onClick=${erase}><${Icon} name="erase" /></button>
        <button class="primary enter" disabled=${busy} onMouseDown=${keepFocus}>${t.enter}</button>
      </div>
      <div class="acts">
        <${Act} name=${t.skip} sign="S" act=${skip} />
        <${Act} name=${t.cannotCount} sign="C" act=${actions.c} />
        <${Act} name=${t.retake} sign="T" act=${actions.t} />
        <${Act} name=${t.undo} sign="U" act=${undo} />
      </div>
      <${Why} said=${said.current} />
      <${Done} done=${done} />
      <${KeyList} />
    </form>
  `;
}

function Act({ name, sign, act }) {
  const { on } = useStore(single);
  return html`<button type="button" onClick=${act} onMouseDown=${keepFocus}>
    ${name} ${on && html`<kbd aria-hidden="true">${sign}</kbd>`}
  </button>`;
}

function Why({ said }) {
  return html`<details class="why">
    <summary>${t.reasonTitle} <span class="quiet">${t.optional}</span></summary>
    <label>${t.reason}
      <select onChange=${(event) => set(said, "reason", event.target.value)}>
        ${Object.entries(t.reasons).map(([code, name]) => html`<option value=${code}>${name}</option>`)}
      </select>
    </label>
    <label>${t.note}
      <textarea rows="2" maxlength="500" onInput=${(event) => set(said, "note", event.target.value)}></textarea>
    </label>
  </details>`;
}

/** An empty text says nothing. */
function set(said, name, value) {
  if (value) said[name] = value;
  else delete said[name];
}

function Done({ done }) {
  return html`<p class="done">
    <strong>${t.counted(done.counted)}</strong>${done.skipped > 0 && html` · ${t.skipped(done.skipped)}`}
  </p>`;
}

function KeyList() {
  const { on } = useStore(single);
  return html`<details class="keys">
    <summary>${t.keys}</summary>
    <dl>${t.keyList.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <label class="check"><input type="checkbox" checked=${on} aria-describedby="single"
      onChange=${(event) => switchSingle(event.target.checked)} /> ${t.single}</label>
    <p id="single">${t.singleAbout}</p>
  </details>`;
}

function Nothing({ line, looking, empty, problem, undo, done }) {
  const again = line.skipped.size;
  return html`<div class="empty">
    ${empty && !problem
      ? html`<h1>${t.emptyTitle}</h1>
          <p>${t.empty}</p>`
      : html`<h1 class="quiet" role="status">${problem ? problem.message : t.loading}</h1>`}
    <${Done} done=${done} />
    <p class="acts">
      ${again > 0 && html`<button type="button" onClick=${() => line.unskip()}>${t.again(again)}</button>`}
      <button type="button" class="primary" disabled=${looking} onClick=${() => line.fill()}>${t.look}</button>
      ${done.counted > 0 && html`<button type="button" onClick=${undo}>${t.undo}</button>`}
    </p>
  </div>`;
}

function Outbox() {
  const { waiting, refused, kept } = useStore(outbox.outbox);
  const [slow, setSlow] = useState(false);
  const first = waiting[0]?.id;
  useEffect(() => {
    setSlow(false);
    const timer = first && setTimeout(() => setSlow(true), 1500); // most are sent sooner, and nobody needs to know
    return () => clearTimeout(timer);
  }, [first]);
  return html`<div class="notices" role="status">
    ${first && slow &&
    html`<p class="notice waiting">
      <span>${kept ? t.waiting(waiting.length) : t.notKept}</span>
      <button type="button" class="quiet" onClick=${outbox.flush}>${t.send}</button>
    </p>`}
    ${refused.length > 0 &&
    html`<details class="notice problem">
      <summary>${t.refused(refused.length)}</summary>
      <ul>${refused.map(
        (entry) => html`<li>
          ${t.stored(entry.bin, t.said[entry.outcome] ?? entry.quantity)}: ${entry.why}
          <button type="button" class="quiet" onClick=${() => outbox.dismiss(entry.id)}>${texts.dismiss}</button>
        </li>`,
      )}</ul>
    </details>`}
  </div>`;
}

function draftOf(claim) {
  const [bin, version, text] = JSON.parse(sessionStorage.getItem(DRAFT) ?? "[]");
  return bin === claim.bin && version === claim.image_version ? text : "";
}

function progressOf(person, site) {
  const kept = JSON.parse(sessionStorage.getItem(PROGRESS) ?? "{}");
  return kept.person === person && kept.site === site ? kept : { person, site, counted: 0, skipped: 0 };
}

function advance(progress, steps) {
  const sum = (name) => progress.value[name] + (steps[name] ?? 0);
  progress.set({ counted: sum("counted"), skipped: sum("skipped") });
  sessionStorage.setItem(PROGRESS, JSON.stringify(progress.value));
}

/** From the entry to the next photograph on the screen: a measure `entered-to-ready`, for `bintally bench review`. */
function measure() {
  requestAnimationFrame(() =>
    setTimeout(() => {
      if (!performance.getEntriesByName("entered").length) return;
      performance.measure("entered-to-ready", "entered");
      performance.clearMarks("entered");
    }),
  );
}
