// The bins of a site, and one of them: its photographs over time, what the model and the record say, and what people did.
import { Missing, useAnswer } from "./answers.js";
import { encodeId } from "./api.js";
import { Probabilities } from "./charts.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { complain } from "./notice.js";
import { to } from "./route.js";
import { ask } from "./session.js";
import { texts } from "./texts.js";

const t = texts.bins;
const PAUSE = 250; // ms without a key before a search starts

export function Bins({ site, rest }) {
  return rest[0] ? html`<${One} key=${rest[0]} site=${site} bin=${rest[0]} />` : html`<${All} site=${site} />`;
}

/** Pages of a list, each added to those before. `read` gives the items of an answer. */
function usePages(path, read) {
  const first = useAnswer(path);
  const [more, setMore] = useState({ of: null, items: [], cursor: null });
  const [busy, setBusy] = useState(false);
  useEffect(() => setMore({ of: first.answer, items: [], cursor: null }), [first.answer]);
  const items = first.answer ? [...read(first.answer), ...(more.of === first.answer ? more.items : [])] : [];
  const cursor = more.of === first.answer && more.items.length ? more.cursor : first.answer?.cursor;
  async function next() {
    setBusy(true);
    try {
      const answer = await ask(`${path}${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}`);
      setMore((before) => ({ of: first.answer, items: [...(before.of === first.answer ? before.items : []), ...read(answer)], cursor: answer.cursor }));
    } catch (problem) {
      complain(problem);
    }
    setBusy(false);
  }
  return { ...first, items, cursor, next, busy };
}

function All({ site }) {
  const [typed, setTyped] = useState("");
  const [prefix, setPrefix] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setPrefix(typed.trim()), PAUSE);
    return () => clearTimeout(timer);
  }, [typed]);
  const path = `/api/sites/${encodeId(site)}/bins?limit=24${prefix && `&prefix=${encodeURIComponent(prefix)}`}`;
  const { answer, problem, again, items, cursor, next, busy } = usePages(path, (found) => found.bins);
  return html`<div class="sheet">
    <div class="head">
      <h1>${t.title}</h1>
      <label class="search"><span class="unseen">${t.search}</span>
        <input type="search" placeholder=${t.search} value=${typed} maxlength="100" onInput=${(event) => setTyped(event.target.value)} />
      </label>
    </div>
    ${!answer
      ? html`<${Missing} problem=${problem} again=${again} />`
      : !items.length
        ? html`<p class="empty" role="status">${prefix ? t.noneFound(prefix) : t.none}</p>`
        : html`<ul class="gallery">${items.map((each) => html`<li key=${each.bin}><${Card} site=${site} bin=${each} /></li>`)}</ul>`}
    ${answer && cursor && html`<p class="more"><button type="button" disabled=${busy} onClick=${next}>${t.more}</button></p>`}
  </div>`;
}

function Card({ site, bin }) {
  return html`<a class="bin" href=${to("bins", site, bin.bin)}>
    <${Thumbnail} address=${bin.thumbnail} />
    <span class="name">${bin.bin}</span>
    <span class="quiet">${texts.when(bin.captured_at)}</span>
    ${bin.count !== undefined &&
    html`<span class="compare">${t.countOf(bin)}${bin.recorded_quantity !== undefined && html` <span class=${bin.discrepancy ? "badge wrong" : "badge"}>${t.recordedOf(bin)}</span>`}</span>`}
    ${t.retake(bin.flags) && html`<span><span class="badge wrong">${t.needsPhotograph}</span></span>`}
  </a>`;
}

function Thumbnail({ address, alt = "" }) {
  const [broken, setBroken] = useState(false);
  if (!address || broken) return html`<span class="thumb none">${t.noPicture}</span>`;
  return html`<img class="thumb" src=${address} alt=${alt} loading="lazy" decoding="async" onError=${() => setBroken(true)} />`;
}

function One({ site, bin }) {
  const path = `/api/sites/${encodeId(site)}/bins/${encodeId(bin)}?limit=12`;
  const { answer, problem, again, items, cursor, next, busy } = usePages(path, (found) => found.photographs);
  const [chosen, setChosen] = useState(0);
  const heading = useRef();
  useEffect(() => heading.current?.focus(), []);
  const shown = items[chosen];
  return html`<div class="sheet">
    <div class="head">
      <h1 ref=${heading} tabindex="-1"><span class="quiet">${t.bin}</span> ${answer?.bin ?? bin}</h1>
      <a href=${to("bins", site)}>${t.back}</a>
    </div>
    ${!answer
      ? html`<${Missing} problem=${problem} again=${again} />`
      : html`
        ${answer.blind && html`<p class="note">${t.blind}</p>`}
        <div class="of-bin">
          <section class="viewer" aria-label=${t.photographs}>
            ${shown
              ? html`<figure>
                  ${shown.photograph
                    ? html`<a href=${shown.photograph} target="_blank" rel="noopener"><img src=${shown.photograph} alt=${t.photographOf(bin, shown.captured_at)} /></a>`
                    : html`<p class="empty">${t.noPicture}</p>`}
                  <figcaption>${t.taken(shown.captured_at)}${shown.model_version && html`<span class="quiet"> · ${t.model(shown.model_version)}</span>`}</figcaption>
                </figure>`
              : html`<p class="empty">${t.noPhotographs}</p>`}
            <ul class="strip">${items.map((each, index) => html`<li key=${each.image_version + each.captured_at}>
              <button type="button" aria-pressed=${index === chosen} onClick=${() => setChosen(index)}>
                <${Thumbnail} address=${each.thumbnail} />
                <span>${texts.when(each.captured_at)}</span>
                ${each.count !== undefined && html`<strong>${t.countOf(each)}</strong>`}
              </button></li>`)}
            </ul>
            ${cursor && html`<p class="more"><button type="button" disabled=${busy} onClick=${next}>${t.earlier}</button></p>`}
          </section>
          <div class="facts">
            ${shown?.status && html`<${Count} of=${shown} />`}
            ${!answer.blind && html`<${Record} record=${answer.record} /><${Review} review=${answer.review} />`}
          </div>
        </div>
        ${answer.trail?.length > 0 && html`<${Trail} lines=${answer.trail} />`}
      `}
  </div>`;
}

function Count({ of }) {
  if (of.status !== "COUNTED") {
    return html`<section class="card block"><h2>${t.rejected}</h2><p>${of.reason}</p></section>`;
  }
  return html`<section class="card block">
    <h2>${t.answer}</h2>
    ${t.retake(of.flags) && html`<p class="note wrong"><strong>${t.takeNew}</strong> ${t.retake(of.flags)}</p>`}
    <p class="big">${t.countOf(of)} <span class="quiet">${t.sure(of.confidence)}</span></p>
    ${of.probabilities && html`<${Probabilities} values=${of.probabilities} count=${of.count} recorded=${of.recorded_quantity} />`}
    ${of.recorded_quantity !== undefined &&
    html`<p>${t.compared(of)} <span class=${of.discrepancy ? "badge wrong" : "badge"}>${of.discrepancy ? t.differs : t.agrees}</span></p>`}
    ${of.likely_size !== undefined && html`<p class="quiet">${t.ifWrong(of)}</p>`}
    ${t.noted(of.flags) && html`<p class="quiet">${t.noted(of.flags)}</p>`}
  </section>`;
}

function Record({ record }) {
  return html`<section class="card block">
    <h2>${t.record}</h2>
    ${record
      ? html`<p class="big">${texts.number(record.expected_quantity)}</p>
          ${record.as_of && html`<p class="quiet">${t.asOf(record.as_of)}</p>`}
          ${record.source && html`<p class="quiet">${t.source(record.source)}</p>`}`
      : html`<p class="quiet">${t.noRecord}</p>`}
  </section>`;
}

function Review({ review }) {
  if (!review) return html`<section class="card block"><h2>${t.review}</h2><p class="quiet">${t.noReview}</p></section>`;
  return html`<section class="card block">
    <h2>${t.review}</h2>
    <p class="big small">${review.outcome ? t.outcomes[review.outcome] ?? review.outcome : t.stages[review.stage] ?? review.stage}</p>
    ${review.quantity !== undefined && html`<p>${t.found(review)}</p>`}
    ${review.resolved_at && html`<p class="quiet">${t.resolved(review.resolved_at)}</p>`}
    ${review.claim && html`<p class="quiet">${t.claimed(review.claim)}</p>`}
  </section>`;
}

function Trail({ lines }) {
  return html`<section class="card block">
    <h2>${t.trail}</h2>
    <ol class="trail">${[...lines].reverse().map((line) => html`<li>
      <time datetime=${line.at}>${texts.when(line.at)}</time>
      <span><strong>${t.actions[line.action] ?? line.action}</strong>${line.person && html` ${t.by(line.person)}`}
        ${line.entry && html`: ${t.entry(line.entry)}`}
        ${line.entry?.note && html`<q>${line.entry.note}</q>`}
        <span class="quiet">${t.against(line.review)}</span></span>
    </li>`)}</ol>
  </section>`;
}
