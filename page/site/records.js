// Files of inventory records: sent to the stack, and shown row by row as it read them.
import { encodeId, Refused } from "./api.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { to } from "./route.js";
import { ask } from "./session.js";
import { texts } from "./texts.js";

const t = texts.records;
const LARGEST = 4 * 1024 * 1024; // bytes; the API takes no more
const PAUSE = 1500; // ms between looks at a file that nobody has read yet
const SHOWN = 200; // rows on the page; the download has all

export function Records({ site }) {
  const [files, setFiles] = useState([]);
  const [over, setOver] = useState(false);
  const here = useRef(true);
  useEffect(() => () => (here.current = false), []);

  const change = (id, what) => here.current && setFiles((before) => before.map((file) => (file.id === id ? { ...file, ...what } : file)));

  function take(chosen) {
    for (const file of chosen) {
      const id = crypto.randomUUID();
      const fault = file.size > LARGEST ? t.tooLarge(LARGEST) : file.size === 0 ? t.emptyFile : null;
      setFiles((before) => [{ id, file, name: file.name, problem: fault, answer: null, sent: !fault }, ...before]);
      if (!fault) send(id, file);
    }
  }

  /** Under one id, however often: the stack stores the file once. */
  async function send(id, file) {
    change(id, { problem: null, sent: true });
    const path = `/api/sites/${encodeId(site)}/records`;
    try {
      let answer = await ask(`${path}?id=${id}`, file);
      while (answer.state === "WAITING" && here.current) {
        await new Promise((done) => setTimeout(done, PAUSE));
        answer = await ask(`${path}/${id}`);
      }
      change(id, { answer });
    } catch (problem) {
      change(id, { problem: problem.message, again: !(problem instanceof Refused) });
    }
  }

  function drop(event) {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files);
  }

  return html`<div class="sheet">
    <div class="head"><h1>${t.title}</h1></div>
    <label class=${over ? "drop over" : "drop"} onDragOver=${(event) => (event.preventDefault(), setOver(true))}
      onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <strong>${t.drop(site)}</strong>
      <span class="quiet">${t.columns}</span>
      <input type="file" multiple accept=".csv,.tsv,.txt,text/csv,text/plain" aria-label=${t.choose}
        onChange=${(event) => (take(event.target.files), (event.target.value = ""))} />
    </label>
    <div aria-live="polite">${files.map((file) => html`<${File} key=${file.id} site=${site} file=${file} again=${() => send(file.id, file.file)} />`)}</div>
  </div>`;
}

function File({ site, file, again }) {
  const { answer, problem } = file;
  return html`<section class="card block">
    <h2>${file.name}</h2>
    ${problem && html`<p class="problem" role="alert">${problem} ${file.again && html`<button type="button" onClick=${again}>${texts.startAgain}</button>`}</p>`}
    ${!problem && !answer && html`<p role="status" class="busy">${t.reading}</p>`}
    ${answer && html`<${Gave} site=${site} name=${file.name} answer=${answer} />`}
  </section>`;
}

function Gave({ site, name, answer }) {
  const rows = [
    ...answer.records.map((row) => ({ line: row.line, bin: row.bin, said: t.quantity(row.quantity, row.as_of), kept: true })),
    ...answer.faults.map((fault) => ({ line: fault.line, said: fault.reason, kept: false })),
  ].sort((one, other) => one.line - other.line);
  const left = answer.records_left_out + answer.faults_left_out + Math.max(0, rows.length - SHOWN);
  return html`
    <p><span class="badge">${t.kept(answer.kept, answer.bins)}</span>
      ${answer.malformed > 0 && html` <span class="badge wrong">${t.malformed(answer.malformed)}</span>`}</p>
    ${answer.unknown_columns?.length > 0 && html`<p class="quiet">${t.unused(answer.unknown_columns)}</p>`}
    ${answer.malformed > 0 && html`<p><button type="button" onClick=${() => save(name, answer.faults)}>${t.download}</button></p>`}
    ${rows.length > 0 &&
    html`<div class="scroll tall" tabindex="0" role="region" aria-label=${t.rows(name)}>
      <table>
        <thead><tr>${t.head.map((each) => html`<th scope="col">${each}</th>`)}</tr></thead>
        <tbody>${rows.slice(0, SHOWN).map((row) => html`<tr class=${row.kept ? null : "wrong"}>
          <th scope="row">${row.line || t.wholeFile}</th>
          <td>${row.bin ? html`<a href=${to("bins", site, row.bin)}>${row.bin}</a>` : "–"}</td>
          <td>${row.kept ? t.stored : t.notStored}</td>
          <td class="text">${row.said}</td>
        </tr>`)}</tbody>
      </table>
    </div>`}
    ${left > 0 && html`<p class="quiet">${t.leftOut(left)}</p>`}
  `;
}

/** A CSV file of the faults. A spreadsheet reads no cell as a formula: OWASP's list of first characters. */
export function csvOf(faults) {
  const cell = (text) => `"${(/^[=+\-@\t\r\n]/.test(text) ? "'" : "") + String(text).replaceAll('"', '""')}"`;
  return ["line,reason", ...faults.map((fault) => `${fault.line},${cell(fault.reason)}`)].join("\r\n") + "\r\n";
}

function save(name, faults) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", csvOf(faults)], { type: "text/csv" }));
  link.download = `${name.replace(/\.[^.]*$/, "")}-faults.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
