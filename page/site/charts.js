// Charts as SVG. Each has its numbers as a table beside it, for people who do not see it and for those who copy them.
import { html, useEffect, useRef, useState } from "./html.js";
import { texts } from "./texts.js";

const USUAL = 560; // px, until the chart knows its place
const HEIGHT = 190;
const LEFT = 44;
const BOTTOM = 24;
const TOP = 8;
const INNER = HEIGHT - BOTTOM - TOP;

/** Steps for an axis from 0 to at least `most`: 1, 2 or 5 times a power of ten. */
export function ticks(most, whole = true) {
  const rough = Math.max(most, whole ? 1 : 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough) ?? power;
  const used = whole ? Math.max(1, step) : step;
  return Array.from({ length: Math.ceil(most / used - 1e-9) + 1 }, (_, index) => index * used);
}

/**
 * Bars of days, one part of `series` on the other, or a line where `line` is set; `days`: [{day, …numbers}], `series`:
 * [[name, title]]. Where `share` is set, values are from 0 to 1 and null is a gap.
 */
export function Days({ title, days, series, line = false, share = false }) {
  const [at, setAt] = useState(null);
  const [place, width] = useWidth();
  const sums = days.map((day) => series.reduce((sum, [name]) => sum + (day[name] ?? 0), 0));
  const steps = share ? [0, 0.25, 0.5, 0.75, 1] : ticks(Math.max(1, ...sums));
  const most = steps.at(-1);
  const wide = (width - LEFT) / days.length;
  const x = (index) => LEFT + wide * index;
  const y = (value) => TOP + INNER * (1 - value / most);
  const told = (value) => (value == null ? "–" : share ? texts.percent(value) : texts.number(value));
  const every = Math.ceil(days.length / Math.max(2, Math.floor((width - LEFT) / 90)));
  const shown = at === null ? null : days[at];
  const empty = sums.every((sum) => !sum) && days.every((day) => series.every(([name]) => !day[name]));

  return html`<figure class="chart" ref=${place}>
    <figcaption>
      <strong>${title}</strong>
      <span class="quiet told">${shown
        ? html`${texts.day(shown.day)}: ${series.map(([name, label]) => `${told(shown[name])} ${label}`).join(", ")}`
        : series.length > 1
          ? series.map(([, label], index) => html`<span class="key"><i class="k${index}"></i>${label}</span>`)
          : ""}</span>
    </figcaption>
    <svg viewBox="0 0 ${width} ${HEIGHT}" role="img" aria-label=${title} onMouseLeave=${() => setAt(null)}>
      ${steps.map(
        (step) => html`<line class="rule" x1=${LEFT} x2=${width} y1=${y(step)} y2=${y(step)} />
          <text class="axis end" x=${LEFT - 8} y=${y(step) + 4}>${told(step)}</text>`,
      )}
      ${days.map(
        (day, index) => index % every === 0 &&
          html`<text class="axis" x=${x(index) + wide / 2} y=${HEIGHT - 6}>${texts.shortDay(day.day)}</text>`,
      )}
      ${line
        ? runs(days, series[0][0]).map(
            (run) => html`<polyline class="line" points=${run.map(([index, value]) => `${x(index) + wide / 2},${y(value)}`).join(" ")} />
              ${run.map(([index, value]) => html`<circle class="dot" r="3" cx=${x(index) + wide / 2} cy=${y(value)} />`)}`,
          )
        : days.map((day, index) => {
            let below = 0;
            return series.map(([name], part) => {
              const value = Math.max(0, day[name] ?? 0);
              below += value;
              return value > 0 &&
                html`<rect class=${`k${part}`} x=${x(index) + wide * 0.14} width=${wide * 0.72} y=${y(below)}
                  height=${(INNER * value) / most} rx="1.5" />`;
            });
          })}
      ${empty && html`<text class="axis none" x=${(width + LEFT) / 2} y=${HEIGHT / 2}>${texts.nothingYet}</text>`}
      ${days.map(
        (day, index) => html`<rect class=${at === index ? "hit over" : "hit"} x=${x(index)} y=${TOP} width=${wide} height=${INNER}
          onMouseEnter=${() => setAt(index)} />`,
      )}
    </svg>
    <${Numbers} caption=${title} head=${[texts.dayTitle, ...series.map(([, label]) => label)]}
      rows=${days.map((day) => [texts.day(day.day), ...series.map(([name]) => told(day[name]))]).reverse()} />
  </figure>`;
}

/** Where a chart stands, and how wide it is there: its letters keep their size. */
function useWidth() {
  const place = useRef();
  const [width, setWidth] = useState(USUAL);
  useEffect(() => {
    const observer = new ResizeObserver(([{ contentRect }]) => setWidth(Math.max(220, Math.round(contentRect.width))));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  return [place, width];
}

/** The stretches of days that have a value. */
function runs(days, name) {
  const found = [[]];
  days.forEach((day, index) => {
    if (day[name] == null) found.push([]);
    else found.at(-1).push([index, day[name]]);
  });
  return found.filter((run) => run.length);
}

export function Numbers({ caption, head, rows }) {
  return html`<details class="numbers">
    <summary>${texts.numbers}</summary>
    <div class="scroll" tabindex="0" role="region" aria-label=${caption}>
      <table class="of-numbers">
        <caption class="unseen">${caption}</caption>
        <thead><tr>${head.map((each) => html`<th scope="col">${each}</th>`)}</tr></thead>
        <tbody>${rows.map((row) => html`<tr>${row.map((cell, index) => (index ? html`<td>${cell}</td>` : html`<th scope="row">${cell}</th>`))}</tr>`)}</tbody>
      </table>
    </div>
  </details>`;
}

/** The probabilities of 0 to 5 and of 6 or more as bars; `count` and `recorded` are marked. */
export function Probabilities({ values, count, recorded }) {
  const classes = ["0", "1", "2", "3", "4", "5", "6+"];
  const place = (quantity) => (quantity == null ? null : Math.min(quantity, 6));
  return html`<figure class="probabilities">
    <svg viewBox="0 0 280 132" role="img" aria-label=${texts.bins.probabilities(classes.map((name, index) => `${name}: ${texts.percent(values[index])}`))}>
      ${classes.map((name, index) => {
        const tall = 84 * values[index];
        return html`<rect class="trough" x=${index * 40 + 4} y="16" width="32" height="84" rx="3" />
          <rect class=${index === place(count) ? "bar counted" : "bar"} x=${index * 40 + 4} y=${100 - tall} width="32" height=${tall} rx="3" />
          <text class="value" x=${index * 40 + 20} y=${Math.max(12, 95 - tall)}>${texts.percent(values[index], 0)}</text>
          <text class=${index === place(count) ? "class counted" : "class"} x=${index * 40 + 20} y="115">${name}</text>
          ${index === place(recorded) && html`<path class="recorded" d="M${index * 40 + 13} 129 l7 -8 l7 8 z" />`}`;
      })}
    </svg>
    <figcaption class="quiet">${texts.bins.probabilityKey(recorded != null)}</figcaption>
  </figure>`;
}

/** How often the model is right (up) when it is this sure (right); the area of a point is its number of photographs. */
export function Reliability({ points }) {
  const at = (value) => 40 + 220 * value;
  const up = (value) => 240 - 220 * value;
  const most = Math.max(1, ...points.map((point) => point.photographs));
  return html`<figure class="reliability">
    <svg viewBox="-6 0 290 280" role="img" aria-label=${texts.models.reliabilityAbout(points.length)}>
      ${[0, 0.25, 0.5, 0.75, 1].map(
        (step) => html`<line class="rule" x1=${at(0)} x2=${at(1)} y1=${up(step)} y2=${up(step)} />
          <text class="axis end" x=${at(0) - 6} y=${up(step) + 4}>${texts.percent(step, 0)}</text>
          <text class="axis" x=${at(step)} y=${up(0) + 16}>${texts.percent(step, 0)}</text>`,
      )}
      <line class="perfect" x1=${at(0)} y1=${up(0)} x2=${at(1)} y2=${up(1)} />
      ${points.map(
        ({ confidence, interval }) => interval?.[0] != null &&
          html`<line class="interval" x1=${at(confidence)} x2=${at(confidence)} y1=${up(interval[0])} y2=${up(interval[1])} />`,
      )}
      <polyline class="line" points=${points.map((point) => `${at(point.confidence)},${up(point.accuracy)}`).join(" ")} />
      ${points.map(
        (point) => html`<circle class="point" cx=${at(point.confidence)} cy=${up(point.accuracy)} r=${2 + 7 * Math.sqrt(point.photographs / most)}>
          <title>${texts.models.point(point)}</title></circle>`,
      )}
      <text class="axis" x="150" y="272">${texts.models.predicted}</text>
    </svg>
  </figure>`;
}
