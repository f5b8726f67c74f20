// What a page reads from the API: loaded when it is first shown, again when asked, and once more as time goes on.
import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { ask } from "./session.js";
import { texts } from "./texts.js";

/**
 * The answer to a path: {answer, problem, again}. `every`: ms after which it is asked again while the page is in sight;
 * 0 for never. An answer stays until the next one comes; one that was asked for another path is dropped.
 */
export function useAnswer(path, every = 0) {
  const [state, setState] = useState({ path: null, answer: null, problem: null });
  const wanted = useRef(path);
  wanted.current = path;
  const again = useCallback(async () => {
    try {
      const answer = await ask(path);
      if (wanted.current === path) setState({ path, answer, problem: null });
    } catch (problem) {
      if (wanted.current === path) setState((before) => ({ path, answer: before.path === path ? before.answer : null, problem }));
    }
  }, [path]);
  useEffect(() => {
    again();
    if (!every) return;
    const timer = setInterval(() => document.hidden || again(), every);
    return () => clearInterval(timer);
  }, [again, every]);
  const known = state.path === path ? state : { answer: null, problem: null };
  return { answer: known.answer, problem: known.problem, again };
}

/** What stands in the place of an answer that has not come. */
export function Missing({ problem, again }) {
  if (!problem) return html`<p class="empty" role="status">${texts.loading}</p>`;
  return html`<div class="empty">
    <p class="problem" role="alert">${problem.message}</p>
    <p><button type="button" onClick=${again}>${texts.startAgain}</button></p>
  </div>`;
}
