// A value that components follow.
import { useLayoutEffect, useState } from "./html.js";

export class Store {
  #followers = new Set();

  constructor(value) {
    this.value = value;
  }

  /** Changes some members of the value. */
  set(change) {
    this.value = { ...this.value, ...change };
    for (const follower of this.#followers) follower();
  }

  /** Calls `follower` after each change; returns what ends this. */
  follow(follower) {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }
}

/** The value of a store; the component is drawn again when it changes. */
export function useStore(store) {
  const [, draw] = useState(0);
  useLayoutEffect(() => {
    const again = () => draw((count) => count + 1);
    again();
    return store.follow(again);
  }, [store]);
  return store.value;
}
