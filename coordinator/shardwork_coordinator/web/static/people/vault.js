// The vault: what this browser keeps, in IndexedDB. The identity (a key that can't be read out), and calls that are
// still to be sent. Nothing of a task's text is kept.

const NAME = "shardwork-people";
let opening = null;

const open = () => {
  opening ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open(NAME, 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("identity");
      asked.result.createObjectStore("outbox", { keyPath: "lease" });
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => {
      opening = null;
      reject(asked.error);
    };
  });
  return opening;
};

// durable when it resolves: the transaction's end, not the request's
const within = async (store, mode, work) => {
  const base = await open();
  return new Promise((resolve, reject) => {
    const transaction = base.transaction(store, mode);
    const asked = work(transaction.objectStore(store));
    transaction.oncomplete = () => resolve(asked.result);
    transaction.onabort = () => reject(transaction.error);
    transaction.onerror = () => reject(transaction.error);
  });
};

export const vault = {
  identity: () => within("identity", "readonly", (store) => store.get("me")),
  setIdentity: (value) => within("identity", "readwrite", (store) => store.put(value, "me")),
  kept: () => within("outbox", "readonly", (store) => store.getAll()),
  keep: (entry) => within("outbox", "readwrite", (store) => store.put(entry)),
  // drops it unless somebody changed their mind meanwhile and kept another in its place; whether it was still this one
  drop: async (entry) => {
    const found = await within("outbox", "readwrite", (store) => {
      const asked = store.get(entry.lease);
      asked.onsuccess = () => {
        if (asked.result?.turn === entry.turn) store.delete(entry.lease);
      };
      return asked;
    });
    return found?.turn === entry.turn;
  },
};
