// The bins that a person has claimed at a site: the one in hand, and the next one with its photograph ready to show.
import { encodeId, Refused } from "./api.js";
import { alone, kept } from "./kept.js";
import { unsent } from "./outbox.js";
import { ask } from "./session.js";
import { Store } from "./store.js";

const READY = 2; // the bin in hand, and the next
const TAB = "bintally.tab";
const CHECK = 20000; // ms between looks at the claims

export class Line {
  /** `ready`: claimed bins, the one in hand first. `problem`: why there are not more; null while all is well. */
  state = new Store({ ready: [], looking: false, empty: false, problem: null });
  skipped = new Set();
  #gone = new Set(); // entered, and perhaps not yet sent: the stack still thinks that they are in hand
  #coming = []; // claimed, and its photograph not here yet
  #filling = null;
  #left = false;
  #timer = 0;

  constructor(site) {
    this.site = site;
    this.path = `/api/sites/${encodeId(site)}`;
  }

  start() {
    this.#timer = setInterval(() => this.#renew(), CHECK);
    return this.fill();
  }

  stop() {
    clearInterval(this.#timer);
  }

  /** Claims bins until enough are ready, or none is left. One call at a time works; others wait for it. */
  fill() {
    this.#filling ??= this.#fill().finally(() => (this.#filling = null));
    return this.#filling;
  }

  /** Takes the bin in hand away, and shows the next. */
  pass() {
    const [first, ...rest] = this.state.value.ready;
    if (!first) return;
    this.#gone.add(first.bin);
    this.#show(rest);
    this.fill();
  }

  /** Puts the bin in hand to the end of the day. */
  skip() {
    const [first] = this.state.value.ready;
    if (!first) return;
    this.skipped.add(first.bin);
    this.pass();
    this.#release(first.bin);
  }

  /** Shows the skipped bins again. */
  unskip() {
    for (const bin of this.skipped) this.#gone.delete(bin);
    this.skipped.clear();
    return this.fill();
  }

  /** Puts a bin back in hand, before the others. */
  takeBack(claim) {
    this.#gone.delete(claim.bin);
    this.skipped.delete(claim.bin);
    this.#show([claim, ...this.state.value.ready.filter((each) => each.bin !== claim.bin)]);
  }

  /** A stack that has an entry no longer gives its bin again, unless it needs another recount. */
  sent(bin) {
    this.#gone.delete(bin);
  }

  /** Gives all claims back, the one whose photograph is on its way too. */
  async leave() {
    this.stop();
    this.#left = true;
    const bins = [...this.state.value.ready.map((claim) => claim.bin), ...this.#coming];
    this.#coming = [];
    this.#show([]);
    await Promise.all(bins.map((bin) => this.#release(bin)));
  }

  /** Asks for a bin's photograph again: its link lives for minutes. */
  async reload(claim) {
    const found = await prepared(await ask(`${this.path}/claims`, { bin: claim.bin }));
    this.#show(this.state.value.ready.map((each) => (each === claim ? found : each)));
  }

  async #fill() {
    this.state.set({ looking: true, empty: false, problem: null });
    try {
      while (this.state.value.ready.length < READY) {
        const claim = await this.#claim();
        if (!claim) return this.state.set({ empty: true });
        const found = await prepared(claim); // meanwhile the person goes on
        if (this.#left) return;
        this.#coming = [];
        this.#show([...this.state.value.ready, found]);
      }
    } catch (problem) {
      this.state.set({ problem });
    } finally {
      this.state.set({ looking: false });
    }
  }

  /** Tabs claim one after the other: the stack gives a person the bin that they hold, and each tab holds its own. */
  #claim() {
    return alone("bintally.claim", async () => {
      const [held, waiting] = [await othersHold(this.site), await unsent(this.site)];
      const mine = this.state.value.ready.map((claim) => claim.bin);
      const skip = [...new Set([...mine, ...held, ...waiting, ...this.skipped, ...this.#gone])];
      const claim = await ask(`${this.path}/claims`, { skip }).catch(nothingLeft);
      if (claim) {
        this.#coming = [claim.bin];
        await this.#hold();
      }
      return claim && { ...claim, lasts: Date.now() + life(claim) / 2 };
    });
  }

  /** Claims end while a person looks; those that are half over are renewed, unless nobody looks. */
  async #renew() {
    if (document.visibilityState !== "visible") return;
    for (const claim of this.state.value.ready.filter((each) => Date.now() > each.lasts)) {
      try {
        const renewed = await ask(`${this.path}/claims`, { bin: claim.bin });
        claim.lasts = Date.now() + life(renewed) / 2;
      } catch (problem) {
        if (!(problem instanceof Refused)) return;
        this.#show(this.state.value.ready.filter((each) => each !== claim));
        this.lost?.(claim, problem);
        this.fill();
      }
    }
  }

  #show(ready) {
    this.state.set({ ready });
    this.#hold();
  }

  #hold() {
    return hold(this.site, [...this.state.value.ready.map((claim) => claim.bin), ...this.#coming]);
  }

  #release(bin) {
    return ask(`${this.path}/releases`, { bin }, { keepalive: true }).catch(() => {});
  }
}

function nothingLeft(problem) {
  if (problem.code === "NOTHING_LEFT") return null;
  throw problem;
}

/** ms that a claim lasts. A clock that is wrong by more than that gets the least. */
function life(claim) {
  return Math.min(Math.max(Date.parse(claim.claimed_until) - Date.now(), 30000), 3600000);
}

/** The claim with `image`, an element that is decoded and can be shown at once; null when there is no photograph. */
async function prepared(claim) {
  const image = new Image();
  image.decoding = "sync";
  image.draggable = false;
  image.src = claim.photograph ?? "";
  try {
    await image.decode();
    return { ...claim, image };
  } catch {
    return { ...claim, image: null };
  }
}

// Each tab has an id, and holds a lock of that name while it lives; a copied tab takes another id.

let tab = null;

async function othersHold(site) {
  tab ??= await named();
  const alive = navigator.locks ? (await navigator.locks.query()).held.map((lock) => lock.name) : [];
  const others = ((await kept("hands", "readonly", (store) => store.getAll())) ?? []).filter((each) => each.tab !== tab);
  const dead = others.filter((each) => !alive.includes(`${TAB}.${each.tab}`));
  for (const { tab: gone } of dead) await kept("hands", "readwrite", (store) => store.delete(gone));
  return others.filter((each) => !dead.includes(each) && each.site === site).flatMap((each) => each.bins);
}

function hold(site, bins) {
  return tab && kept("hands", "readwrite", (store) => store.put({ tab, site, bins }));
}

async function named() {
  if (!navigator.locks) return "only";
  for (let name = sessionStorage.getItem(TAB) ?? crypto.randomUUID(); ; name = crypto.randomUUID()) {
    const free = await new Promise((resolve) => {
      navigator.locks.request(`${TAB}.${name}`, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        return lock && new Promise(() => {}); // held until the tab ends
      });
    });
    if (free) {
      sessionStorage.setItem(TAB, name);
      return name;
    }
  }
}
