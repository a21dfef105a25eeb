// Single keys: which presses are meant for the page, and not for a field, the browser or a screen reader.

const TYPING = "textarea, select, dialog, input:not([type=radio], [type=checkbox])";

export const usesKeys = () => localStorage.getItem("keys") !== "off";

export const setUsesKeys = (isOn) => localStorage.setItem("keys", isOn ? "on" : "off");

// the key in small letters; empty when the press is for somebody else
export const keyOf = (event) => {
  const isOther = event.ctrlKey || event.metaKey || (event.altKey && !event.key.startsWith("Arrow"));
  if (isOther || event.repeat || !usesKeys() || event.target.closest?.(TYPING)) return "";
  // Enter on what can be pressed presses it
  if (event.key === "Enter" && event.target.closest?.("button, a, summary")) return "";
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
};
