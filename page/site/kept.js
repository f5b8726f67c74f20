// What this browser keeps, in IndexedDB: entries that are not yet sent, and the bins that each tab holds.

/** The result of one request to a store, once its transaction has ended; undefined where the browser stores nothing. */
export async function kept(store, mode, work) {
  try {
    const database = await (opened ??= open());
    const transaction = database.transaction(store, mode);
    const asked = work(transaction.objectStore(store));
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    return asked.result;
  } catch (problem) {
    console.warn("IndexedDB", problem);
    return undefined;
  }
}

/** Runs `work` in one tab at a time. */
export function alone(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : work();
}

let opened = null;

function open() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("bintally", 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("entries", { keyPath: "id" });
      asked.result.createObjectStore("hands", { keyPath: "tab" });
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}
