// Keys of a person, and those of a barcode scanner: it types as a keyboard does, but faster than a person can.

const FAST = 40; // ms; a scanner's next key comes sooner, a person's later
const PAUSE = 60; // ms until a letter acts; a scanner's next key has come by then

/** A series: keys each of which came less than FAST after the one before. */
export class Keys {
  text = ""; // what the series has typed; Enter is a line feed
  #last = -Infinity;
  #act = null;
  #timer = 0;

  /** Notes a key that is pressed; true when a new series begins with it. */
  note({ key, timeStamp }) {
    const begins = timeStamp - this.#last >= FAST;
    this.#last = timeStamp;
    if (begins) {
      this.#now();
      this.text = "";
    } else this.cancel();
    if (key.length === 1) this.text += key;
    if (key === "Enter") this.text += "\n";
    return begins;
  }

  /** Whether a scanner types: four keys with a letter, a letter and Enter, or six digits. */
  get scanned() {
    const { text } = this;
    return (/\p{L}/u.test(text) && (text.length > 3 || text.endsWith("\n"))) || text.replace(/\D/g, "").length > 5;
  }

  /** Acts after a pause, unless the series goes on. */
  later(act) {
    this.cancel();
    this.#act = act;
    this.#timer = setTimeout(() => this.#now(), PAUSE);
  }

  cancel() {
    clearTimeout(this.#timer);
    this.#act = null;
  }

  #now() {
    const act = this.#act;
    this.cancel();
    act?.();
  }
}
