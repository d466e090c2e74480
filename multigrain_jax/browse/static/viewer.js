// One photo large, or two side by side, with the arrow keys and their difference.
import { byId, copy, element, nameOf, photo } from "./dom.js";

const dialog = byId("viewer");
let state = null;

/**
 * Open the viewer.
 *
 * query: {source, name} of what stands on the left, or null.
 * photos: [{row, path, similarity}], through which the arrow keys go.
 * onMark: called with a key and the photo; says whether it knew the key.
 * markOf: the mark of a photo's row, in words.
 */
export function open({ query, photos, at, onMark, markOf }) {
  state = { query, photos, at, onMark, markOf, difference: false, from: document.activeElement };
  render();
  dialog.showModal();
  byId("viewer-next").focus();
}

function render() {
  const { query, photos, at, difference } = state;
  const shown = photos[at];
  const similarity =
    shown.similarity === undefined ? "" : ` · similarity ${shown.similarity.toFixed(3)}`;
  byId("viewer-title").textContent =
    `${at + 1} of ${photos.length} · ${nameOf(shown.path)}${similarity}`;
  tellMark();
  byId("viewer-path").textContent = shown.path;
  byId("viewer-copied").textContent = "";
  const right = element("img", { src: photo(shown.row), alt: nameOf(shown.path) });
  const box = byId("viewer-photos");
  const isPair = query && query.row !== shown.row;
  byId("viewer-difference").hidden = !isPair;
  byId("viewer-difference").setAttribute("aria-pressed", String(difference));
  if (!isPair) box.replaceChildren(element("figure", {}, right));
  else {
    const left = element("img", { src: query.source, alt: `compared with: ${query.name}` });
    if (difference) box.replaceChildren(element("figure", { class: "difference" }, left, right));
    else box.replaceChildren(element("figure", {}, left), element("figure", {}, right));
  }
  byId("viewer-previous").disabled = at === 0;
  byId("viewer-next").disabled = at === photos.length - 1;
}

/** Show the mark of the photo again, which may have changed. */
export function tellMark() {
  byId("viewer-mark").textContent = state?.markOf?.(state.photos[state.at].row) ?? "";
}

function step(by) {
  const next = state.at + by;
  if (next < 0 || next >= state.photos.length) return;
  state.at = next;
  render();
}

function toggle() {
  state.difference = !state.difference;
  render();
}

byId("viewer-previous").addEventListener("click", () => step(-1));
byId("viewer-next").addEventListener("click", () => step(1));
byId("viewer-difference").addEventListener("click", toggle);
byId("viewer-close").addEventListener("click", () => dialog.close());
byId("viewer-similar").addEventListener("click", () => {
  const { row } = state.photos[state.at];
  dialog.close();
  location.hash = `#search=${row}`;
});
byId("viewer-copy").addEventListener("click", async () => {
  await copy(state.photos[state.at].path);
  byId("viewer-copied").textContent = "copied";
});
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "d" && !byId("viewer-difference").hidden) toggle();
  else if (!state.onMark?.(event.key, state.photos[state.at])) return;
  event.preventDefault();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
dialog.addEventListener("close", () => state.from?.focus());
