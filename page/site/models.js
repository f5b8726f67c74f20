// Versions of the model: how good each is, which is live, and what a manager decides; and retrainings.
import { Missing, useAnswer } from "./answers.js";
import { encodeId } from "./api.js";
import { Reliability } from "./charts.js";
import { html, useState } from "./html.js";
import { complain, tell } from "./notice.js";
import { go, to } from "./route.js";
import { ask, may } from "./session.js";
import { texts } from "./texts.js";

const t = texts.models;
const SLOW = 20000; // ms
const FAST = 3000; // ms, while a release or a retraining runs
const FIGURES = {
  as_shipped: ["rps", "log_loss", "accuracy", "within_one", "within_one_of_0_to_5", "photographs"],
  as_published: ["accuracy", "within_one", "rmse", "rmse_of_posterior_mean", "log_loss", "photographs"],
};
const CLASSES = ["0", "1", "2", "3", "4", "5", "6+"];

export function Models({ me, rest }) {
  const [pace, setPace] = useState(SLOW);
  const models = useAnswer("/api/models", pace);
  const runs = useAnswer("/api/retrainings", pace);
  const mayDecide = may("manager") && me.sites === null;
  const running = models.answer?.release?.status === "RUNNING" || runs.answer?.retrainings.some((run) => run.outcome === "running");
  if (pace !== (running ? FAST : SLOW)) setPace(running ? FAST : SLOW);

  /** Does what a manager decided, and shows what follows. */
  async function decide(question, path, body, done) {
    if (!confirm(question)) return;
    try {
      tell(done(await ask(path, body)));
    } catch (problem) {
      complain(problem);
    }
    models.again();
    runs.again();
  }

  const found = models.answer?.models;
  const chosen = rest[0] ?? models.answer?.live ?? found?.[0]?.model_version;
  return html`<div class="sheet">
    <div class="head">
      <h1>${t.title}</h1>
      ${mayDecide && models.answer?.live &&
      html`<button type="button" onClick=${() => decide(t.askRollBack(models.answer.live), "/api/rollbacks", {}, t.rollingBack)}>${t.rollBack}</button>`}
    </div>
    ${models.answer?.release && html`<p class=${models.answer.release.status === "FAILED" ? "note wrong" : "note"} role="status">${t.release(models.answer.release)}</p>`}
    ${!found
      ? html`<${Missing} ...${models} />`
      : !found.length
        ? html`<p class="empty">${t.none}</p>`
        : html`<div class="scroll card block" tabindex="0" role="region" aria-label=${t.title}>
            <table>
              <thead><tr>${t.head.map((each) => html`<th scope="col">${each}</th>`)}</tr></thead>
              <tbody>${found.map((each) => html`<tr aria-current=${each.model_version === chosen ? "true" : null}>
                <th scope="row"><a href=${to("models", "", each.model_version)}>${each.model_version}</a></th>
                <td><${State} of=${each} /></td>
                <td>${texts.when(each.made_at)}</td>
                <td>${figure("rps", each.as_shipped?.rps)}</td>
                <td>${figure("accuracy", each.as_shipped?.accuracy)}</td>
                <td>${figure("within_one", each.as_shipped?.within_one)}</td>
                <td>${each.parent ?? "–"}</td>
              </tr>`)}</tbody>
            </table>
          </div>`}
    ${chosen && found && html`<${One} key=${chosen} version=${chosen} mayDecide=${mayDecide} decide=${decide} listed=${found} />`}
    <${Runs} runs=${runs} mayDecide=${mayDecide} decide=${decide} />
  </div>`;
}

function State({ of }) {
  return html`${of.live && html`<span class="badge live">${t.live}</span> `}<span class=${of.state === "rejected" ? "badge wrong" : "badge"}>${t.states[of.state]}</span>`;
}

function One({ version, mayDecide, decide, listed }) {
  const path = `/api/models/${encodeId(version)}`;
  const { answer, problem, again } = useAnswer(path);
  if (!answer) return html`<section class="card block"><h2>${version}</h2><${Missing} problem=${problem} again=${again} /></section>`;
  const now = listed.find((each) => each.model_version === version) ?? answer; // the list is read again and again
  return html`<section class="card block model">
    <div class="head"><h2>${version} <${State} of=${now} /></h2>
      ${mayDecide && html`<div class="acts">
        ${now.state !== "approved" && html`<button type="button" class="primary" onClick=${() => decide(t.askApprove(version), `${path}/approvals`, {}, t.approved)}>${t.approve}</button>`}
        ${now.state !== "rejected" && html`<button type="button" onClick=${() => decide(t.askReject(version), `${path}/rejections`, {}, t.rejected)}>${t.reject}</button>`}
        ${now.state === "approved" && !now.live && html`<button type="button" onClick=${() => decide(t.askRelease(version), `${path}/releases`, {}, t.releasing)}>${t.releaseIt}</button>`}
      </div>`}
    </div>
    ${answer.description && html`<p class="quiet">${answer.description}</p>`}
    ${now.why && html`<p class="quiet">${t.why(now.why)}</p>`}
    ${answer.test_set && html`<p class="quiet">${t.testSet(answer.test_set)}</p>`}
    ${!answer.as_shipped && html`<p class="empty">${t.noFigures}</p>`}
    <div class="figures">
      ${Object.entries(FIGURES).map(([view, names]) => answer[view] && html`<${View} view=${view} names=${names} of=${answer} />`)}
      ${answer.confusion && html`<${Confusion} cells=${answer.confusion} />`}
      ${answer.calibration?.reliability && html`<div>
        <h3>${t.reliability}</h3>
        <${Reliability} points=${answer.calibration.reliability} />
        <p class="quiet">${t.calibrationError(answer.calibration)}</p>
      </div>`}
    </div>
  </section>`;
}

function View({ view, names, of }) {
  const ranges = of.intervals?.[view] ?? {};
  return html`<div>
    <h3>${t.views[view]}</h3>
    <p class="quiet">${t.viewAbout[view]}</p>
    <table class="plain"><tbody>${names.filter((name) => of[view][name] !== undefined).map((name) => html`<tr>
      <th scope="row">${t.figures[name]}</th>
      <td>${figure(name, of[view][name])}${ranges[name]?.[0] != null && html` <span class="quiet">${figure(name, ranges[name][0])} – ${figure(name, ranges[name][1])}</span>`}</td>
    </tr>`)}</tbody></table>
  </div>`;
}

function Confusion({ cells }) {
  const shade = (cell, row) => `s${Math.round((10 * cell) / Math.max(1, row.reduce((sum, each) => sum + each, 0)))}`;
  return html`<div>
    <h3>${t.confusion}</h3>
    <p class="quiet">${t.confusionAbout}</p>
    <div class="scroll" tabindex="0" role="region" aria-label=${t.confusion}>
      <table class="confusion">
        <thead><tr><td></td>${CLASSES.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>${cells.map((row, index) => html`<tr><th scope="row">${CLASSES[index]}</th>
          ${row.map((cell, column) => html`<td class=${`${shade(cell, row)} ${index === column ? "right" : ""}`}>${cell}</td>`)}</tr>`)}</tbody>
      </table>
    </div>
  </div>`;
}

function Runs({ runs, mayDecide, decide }) {
  const [force, setForce] = useState(false);
  const found = runs.answer?.retrainings;
  const running = found?.some((run) => run.outcome === "running");
  return html`<section class="card block">
    <div class="head"><h2>${t.retrainings}</h2>
      ${mayDecide && html`<div class="acts">
        <label class="check"><input type="checkbox" checked=${force} onChange=${(event) => setForce(event.target.checked)} /> ${t.force}</label>
        <button type="button" disabled=${running} onClick=${() => decide(t.askRetrain, "/api/retrainings", { force }, () => t.retraining)}>${t.retrain}</button>
      </div>`}
    </div>
    ${!found
      ? html`<${Missing} ...${runs} />`
      : !found.length
        ? html`<p class="quiet">${t.noRuns}</p>`
        : html`<div class="scroll" tabindex="0" role="region" aria-label=${t.retrainings}><table>
            <thead><tr>${t.runHead.map((each) => html`<th scope="col">${each}</th>`)}</tr></thead>
            <tbody>${found.map((run) => html`<tr>
              <th scope="row">${run.run}</th>
              <td>${run.started_at ? texts.when(run.started_at) : "–"}</td>
              <td><span class=${run.outcome === "failed" ? "badge wrong" : run.outcome === "running" ? "badge live" : "badge"}>${t.outcomes[run.outcome] ?? run.outcome}</span>
                ${run.step && html` <span class="quiet">${t.step(run.step)}</span>`}</td>
              <td>${run.model_version ? html`<button type="button" class="quiet" onClick=${() => go("models", "", run.model_version)}>${run.model_version}</button>` : "–"}</td>
              <td class="text">${run.reason ?? run.error ?? ""}</td>
            </tr>`)}</tbody>
          </table></div>`}
  </section>`;
}

function figure(name, value) {
  if (value == null) return "–";
  if (name === "photographs") return texts.number(value);
  return name.startsWith("accuracy") || name.startsWith("within") ? texts.percent(value, 1) : value.toFixed(3);
}
