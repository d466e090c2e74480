// Small helpers: everything that comes from outside becomes text, never markup.

/** An element with attributes (listeners as functions), and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(key, value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** The last part of a path. */
export function nameOf(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The file with its folder. */
export function shortName(path) {
  return path.split("/").slice(-2).join("/");
}

export const thumbnail = (row) => `/api/thumbnail/${row}`;
export const photo = (row) => `/api/photo/${row}`;

export const number = (value) => value.toLocaleString("en");

/** "1 photo", "2 photos". */
export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

/** Bytes for people. */
export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Fill a menu with choices, the first of which means all. */
export function fill(select, all, names) {
  select.replaceChildren(
    element("option", { value: "" }, all),
    ...names.map((name) => element("option", { value: name }, name)),
  );
}

/** Copy text, also where the clipboard is not to be had. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = element("textarea", {}, text);
    document.activeElement.after(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

/** A function that runs once some time has passed without another call. */
export function later(run, milliseconds) {
  let waiting;
  return (...values) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => run(...values), milliseconds);
  };
}
