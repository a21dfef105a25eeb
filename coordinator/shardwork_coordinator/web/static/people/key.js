// The key: who somebody is here. Made in this browser, kept in it so that no script can read it out, used to sign calls.
// A copy can be saved only at the moment it is made, shut with a passphrase; what is stored afterwards can't be exported.

const ALGORITHM = { name: "Ed25519" };
const ROUNDS = 600_000;
const FORMAT = "shardwork-people-key-1";
const encoder = new TextEncoder();

export const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const bytesOf = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));

export const hex = (bytes) => [...new Uint8Array(bytes)].map((one) => one.toString(16).padStart(2, "0")).join("");

// why this browser can't be used, in words; empty when it can
export const hindrance = async () => {
  if (!globalThis.isSecureContext || !globalThis.crypto?.subtle) {
    return "Your browser makes keys only on pages whose address begins with https. Ask whoever sent you the link for such an address.";
  }
  if (!globalThis.indexedDB) return "Your browser keeps nothing for this page, so your key would be lost. Leave private browsing, or use another browser.";
  try {
    await crypto.subtle.generateKey(ALGORITHM, false, ["sign"]);
  } catch {
    return "Your browser is too old to make the key that you would be paid by (Ed25519). A Firefox, Chrome, Edge or Safari of this year can.";
  }
  return "";
};

// {key, public}, and {copy}: a text to save, when a passphrase is given
export const create = async (passphrase = "") => {
  const pair = await crypto.subtle.generateKey(ALGORITHM, Boolean(passphrase), ["sign", "verify"]);
  const open = base64url(await crypto.subtle.exportKey("raw", pair.publicKey));
  if (!passphrase) return { key: pair.privateKey, public: open };
  const secret = await crypto.subtle.exportKey("pkcs8", pair.privateKey);
  return { key: await locked(secret), public: open, copy: await shut(secret, open, passphrase) };
};

// the identity in a saved copy; throws what somebody can read
export const restore = async (text, passphrase) => {
  let copy;
  try {
    copy = JSON.parse(text);
  } catch {
    copy = null;
  }
  if (copy?.format !== FORMAT) throw new Error("This file is no copy of a key from here.");
  const wrapping = await stretched(passphrase, bytesOf(copy.salt), copy.rounds);
  let secret;
  try {
    secret = await crypto.subtle.decrypt({ name: "AES-GCM", iv: bytesOf(copy.iv) }, wrapping, bytesOf(copy.secret));
  } catch {
    throw new Error("The passphrase does not fit this copy.");
  }
  return { key: await locked(secret), public: copy.public };
};

export const signature = async (key, text) => base64url(await crypto.subtle.sign(ALGORITHM, key, encoder.encode(text)));

export const digest = async (text) => hex(await crypto.subtle.digest("SHA-256", encoder.encode(text)));

// as a key that signs and can't be read out
const locked = (secret) => crypto.subtle.importKey("pkcs8", secret, ALGORITHM, false, ["sign"]);

const stretched = async (passphrase, salt, rounds) => {
  const given = await crypto.subtle.importKey("raw", encoder.encode(passphrase), "PBKDF2", false, ["deriveKey"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt, iterations: Math.min(Number(rounds) || 0, 10 * ROUNDS) };
  return crypto.subtle.deriveKey(how, given, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
};

const shut = async (secret, open, passphrase) => {
  const salt = crypto.getRandomValues(new Uint8Array(16));
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const wrapping = await stretched(passphrase, salt, ROUNDS);
  const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, wrapping, secret);
  const parts = { salt: base64url(salt), iv: base64url(iv), secret: base64url(sealed) };
  return JSON.stringify({ format: FORMAT, public: open, rounds: ROUNDS, ...parts }, null, 1);
};
