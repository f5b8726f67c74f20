// The overview: what waits, what was counted, how far it agrees with the records, and what recounts found.
import { Missing, useAnswer } from "./answers.js";
import { encodeId } from "./api.js";
import { Days } from "./charts.js";
import { html, useEffect, useState } from "./html.js";
import { to } from "./route.js";
import { ask, may } from "./session.js";
import { texts } from "./texts.js";

const t = texts.overview;
const EVERY = 30000; // ms
const MOST_LISTED = 100;
const MOST_SITES = 30; // sites that one table shows; each is one request

export function Overview({ site }) {
  const { answer, problem, again } = useAnswer(`/api/sites/${encodeId(site)}/overview?days=30`, EVERY);
  const models = useAnswer("/api/models?limit=1", 10 * EVERY);
  if (!answer) return html`<${Missing} problem=${problem} again=${again} />`;
  const today = answer.days.at(-1);
  const month = answer.all_days;
  return html`<div class="sheet">
    <div class="head"><h1>${t.heading(site)}</h1><p class="quiet">${t.days}</p></div>
    <dl class="tiles">
      <${Tile} name=${t.waiting} value=${waitingOf(answer)} more=${t.opened(today.opened)} main
        link=${may("counter") && answer.waiting ? [to("queue", site), t.start] : null} />
      ${answer.expected_wrong !== undefined &&
      html`<${Tile} name=${t.expected} value=${texts.number(answer.expected_wrong, 1)} more=${t.ofFirst(answer.first)} />`}
      <${Tile} name=${t.counted} value=${texts.number(today.counted)} more=${t.rejected(today.rejected)} />
      ${today.recounted !== null && html`<${Tile} name=${t.recounted} value=${texts.number(today.recounted)} more=${t.wrong(today.record_wrong)} />`}
      <${Tile} name=${t.agreement} value=${share(month.agreement)} more=${t.compared(month.compared)} />
      <${Tile} name=${t.unclear} value=${share(month.unclear_share)} more=${t.retakes(month.retake, month.cannot_count)} />
      <${Tile} name=${t.live} value=${models.answer ? models.answer.live ?? t.none : "…"} small
        link=${models.answer ? [to("models"), t.toModels] : null} />
    </dl>
    ${answer.waiting_by_stage && answer.waiting > 0 && html`<p class="quiet line">${t.stages(answer.waiting_by_stage)}</p>`}
    ${may("manager") && html`<${Audit} site=${site} />`}
    ${answer.so_far?.recounted > 0 && html`<p class="quiet line">${t.soFar(answer.so_far)}</p>`}
    <div class="charts">
      <${Days} title=${t.charts.photographs} days=${answer.days} series=${[["counted", t.series.counted], ["rejected", t.series.rejected]]} />
      <${Days} title=${t.charts.agreement} days=${answer.days} series=${[["agreement", t.series.agreement]]} line share />
      <${Days} title=${t.charts.recounts} days=${answer.days} series=${[
        ["record_right", t.series.record_right],
        ["record_wrong", t.series.record_wrong],
        ["cannot_count", t.series.cannot_count],
        ["retake", t.series.retake],
      ]} />
      <${Days} title=${t.charts.opened} days=${answer.days} series=${[["opened", t.series.opened]]} />
    </div>
    <${Sites} site=${site} />
  </div>`;
}

/** For managers: what bins drawn at random say of records and model. */
function Audit({ site }) {
  const { answer } = useAnswer(`/api/sites/${encodeId(site)}/audit`, 10 * EVERY);
  return answer && html`<p class="quiet line">${answer.recounted > 0 ? t.audit(answer) : t.noAudit}</p>`;
}

function Tile({ name, value, more, link, main = false, small = false }) {
  return html`<div class=${main ? "tile main" : "tile"}>
    <dt>${name}</dt>
    <dd><span class=${small ? "value small" : "value"}>${value}</span>
      ${more && html`<span class="quiet">${more}</span>`}
      ${link && html`<a href=${link[0]}>${link[1]}</a>`}</dd>
  </div>`;
}

function Sites({ site }) {
  const [found, setFound] = useState([]);
  useEffect(() => {
    let here = true;
    async function load() {
      const { sites } = await ask("/api/sites");
      if (sites.length < 2) return;
      const rows = sites.slice(0, MOST_SITES).map((each) => ({ site: each.site }));
      for (const row of rows) {
        row.answer = await ask(`/api/sites/${encodeId(row.site)}/overview?days=7`);
        if (!here) return;
        setFound(rows.filter((each) => each.answer));
      }
    }
    load().catch(() => {}); // the page's own request says what is wrong
    return () => (here = false);
  }, []);
  if (found.length < 2) return null;
  return html`<section class="card block">
    <h2>${t.sites}</h2>
    <div class="scroll" tabindex="0" role="region" aria-label=${t.sites}>
      <table class="of-numbers">
        <thead><tr>${t.siteHead.map((each) => html`<th scope="col">${each}</th>`)}</tr></thead>
        <tbody>${found.map(({ site: name, answer }) => html`<tr aria-current=${name === site ? "true" : null}>
          <th scope="row"><a href=${to("overview", name)}>${name}</a></th>
          <td>${waitingOf(answer)}</td>
          <td>${texts.number(answer.days.at(-1).counted)}</td>
          <td>${share(answer.all_days.agreement)}</td>
          <td>${texts.number(answer.all_days.record_wrong)}</td>
        </tr>`)}</tbody>
      </table>
    </div>
  </section>`;
}

/** Who counts is told of the first MOST_LISTED at most. */
function waitingOf(answer) {
  const more = !answer.waiting_by_stage && answer.waiting === MOST_LISTED;
  return texts.number(answer.waiting) + (more ? "+" : "");
}

function share(value) {
  return value == null ? "–" : texts.percent(value);
}
