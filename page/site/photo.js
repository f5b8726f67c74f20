// A photograph that a person can zoom, move, rotate and brighten, with fingers, a mouse or keys.
import { html, useEffect, useLayoutEffect, useMemo, useRef } from "./html.js";
import { Icon } from "./icons.js";
import { Store, useStore } from "./store.js";
import { texts } from "./texts.js";

const LARGEST = 8;
const STEP = 1.4;
const SHIFT = 80; // px a key press moves
const LIGHTS = [1, 1.5, 2.2];
const t = texts.photo;
const whole = { scale: 1, x: 0, y: 0, turn: 0 };

/** How the photograph is seen; brightness stays from one photograph to the next. */
export class View extends Store {
  constructor() {
    super({ ...whole, light: 0 });
  }

  reset() {
    this.set(whole);
  }

  zoom(factor, x = 0, y = 0) {
    const { value } = this;
    const scale = Math.min(Math.max(value.scale * factor, 1), LARGEST);
    const grown = scale / value.scale; // the point under (x, y), from the centre, stays where it is
    this.move(value.x * grown + x * (1 - grown) - value.x, value.y * grown + y * (1 - grown) - value.y, scale);
  }

  move(x, y, scale = this.value.scale) {
    const most = (scale - 1) / 2;
    const within = (place, side) => Math.min(Math.max(place, -most * side), most * side);
    this.set({ scale, x: within(this.value.x + x, this.width ?? 0), y: within(this.value.y + y, this.height ?? 0) });
  }

  rotate() {
    this.set({ ...whole, turn: (this.value.turn + 1) % 4 });
  }

  brighten() {
    this.set({ light: (this.value.light + 1) % LIGHTS.length });
  }

  /** Does what a key means; false when it means nothing. */
  key(name) {
    const actions = {
      "+": () => this.zoom(STEP),
      "=": () => this.zoom(STEP),
      "-": () => this.zoom(1 / STEP),
      r: () => this.rotate(),
      b: () => this.brighten(),
      arrowleft: () => this.move(SHIFT, 0),
      arrowright: () => this.move(-SHIFT, 0),
      arrowup: () => this.move(0, SHIFT),
      arrowdown: () => this.move(0, -SHIFT),
    };
    actions[name.toLowerCase()]?.();
    return name.toLowerCase() in actions;
  }
}

/** `image`: a decoded element, or null. */
export function Photo({ image, alt, view, children }) {
  const { scale, x, y, turn, light } = useStore(view);
  const frame = useRef();
  const fingers = useMemo(() => new Map(), []);

  useEffect(() => {
    const watch = new ResizeObserver(([{ contentRect }]) => {
      view.width = contentRect.width;
      view.height = contentRect.height;
      view.move(0, 0);
    });
    watch.observe(frame.current);
    const wheel = (event) => {
      event.preventDefault();
      view.zoom(event.deltaY < 0 ? STEP : 1 / STEP, ...fromCentre(frame.current, event));
    };
    frame.current.addEventListener("wheel", wheel, { passive: false });
    return () => watch.disconnect();
  }, [view]);

  useLayoutEffect(() => {
    if (image) image.alt = alt;
    frame.current.replaceChildren(...(image ? [image] : []));
  }, [image]);

  useLayoutEffect(() => {
    if (!image) return;
    const fit = turn % 2 ? fitTurned(image, view) : 1;
    image.style.transform = `translate(${x}px, ${y}px) rotate(${90 * turn}deg) scale(${scale * fit})`;
    image.style.filter = light ? `brightness(${LIGHTS[light]})` : "";
  });

  function down(event) {
    frame.current.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
  }

  function move(event) {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    if (fingers.size === 1) view.move(event.clientX - before.clientX, event.clientY - before.clientY);
    if (fingers.size === 2) {
      const [other] = [...fingers.values()].filter((each) => each.pointerId !== event.pointerId);
      view.zoom(apart(event, other) / Math.max(apart(before, other), 1), ...fromCentre(frame.current, event));
    }
    fingers.set(event.pointerId, event);
  }

  const up = (event) => fingers.delete(event.pointerId);
  const double = (event) => (scale > 1 ? view.reset() : view.zoom(2.5, ...fromCentre(frame.current, event)));

  return html`<div class="photo">
    <div class="frame" ref=${frame} onPointerDown=${down} onPointerMove=${move} onPointerUp=${up}
      onPointerCancel=${up} onDblClick=${double}></div>
    ${children}
    <div class="tools" role="group" aria-label=${t.tools}>
      <${Tool} name=${t.zoomOut} icon="zoomOut" act=${() => view.zoom(1 / STEP)} />
      <${Tool} name=${t.zoomIn} icon="zoomIn" act=${() => view.zoom(STEP)} />
      <${Tool} name=${t.rotate} icon="rotate" act=${() => view.rotate()} />
      <${Tool} name=${t.brighter} icon="brighter" act=${() => view.brighten()} pressed=${light > 0} />
      <${Tool} name=${t.reset} icon="whole" act=${() => view.reset()} />
    </div>
  </div>`;
}

function Tool({ name, icon, act, pressed }) {
  return html`<button type="button" aria-label=${name} title=${name} aria-pressed=${pressed} onClick=${act}
    onMouseDown=${keepFocus}><${Icon} name=${icon} /></button>`;
}

/** A click leaves the keyboard where it is. */
export function keepFocus(event) {
  event.preventDefault();
}

function fromCentre(frame, event) {
  const { left, top, width, height } = frame.getBoundingClientRect();
  return [event.clientX - left - width / 2, event.clientY - top - height / 2];
}

function apart(one, other) {
  return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
}

/** By how much a photograph that lies on its side may grow, or must shrink, to fit. */
function fitTurned({ naturalWidth, naturalHeight }, { width, height }) {
  const upright = Math.min(width / naturalWidth, height / naturalHeight);
  return Math.min(width / naturalHeight, height / naturalWidth) / upright || 1;
}
