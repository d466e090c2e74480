// A photo in, its neighbours out.
import { byId, element, fill, nameOf, number, shortName, photo, thumbnail } from "./dom.js";
import { post } from "./server.js";
import { open } from "./viewer.js";

const COUNTS = [60, 180, 540, 1000];
// Descriptors are stored rounded: two files that are the same are as similar at least.
const EQUAL = 0.9995;
let query = null; // {source, name, row?, body}
let found = [];
let asked = 0;
let total = 0;
let turn = 0;
let requests = 0;

export function start(info) {
  const slider = byId("search-threshold");
  slider.value = info.threshold;
  byId("search-note").textContent = `The slider starts at ${info.threshold.toFixed(2)}: ${info.threshold_origin}.`;
  fill(byId("search-folder"), "all folders", info.folders.map((f) => f.name));
  fill(byId("search-class"), "all classes", info.classes);
  slider.addEventListener("input", render);
  for (const id of ["search-folder", "search-class"]) {
    byId(id).addEventListener("change", () => query && ask(0));
  }
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) upload(file);
    event.target.value = "";
  });
  byId("more").addEventListener("click", () => ask(asked + 1));
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting && !byId("more").hidden && !byId("more").disabled) ask(asked + 1);
  }, { rootMargin: "400px" }).observe(byId("more"));
  takeDrops();
  tellThreshold();
}

export function show(row) {
  if (row !== undefined && row !== "" && query?.row !== Number(row)) searchRow(Number(row));
}

function takeDrops() {
  const area = byId("drop");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  addEventListener("dragleave", () => area.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) upload(file);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) upload(file);
  });
}

async function upload(file) {
  const mine = ++turn;
  if (location.hash !== "#search") history.pushState(null, "", "#search");
  dispatchEvent(new HashChangeEvent("hashchange"));
  begin({ source: URL.createObjectURL(file), name: file.name || "a pasted photo" });
  say("The photo is being looked at…");
  try {
    const embedded = await post("/api/embed", file);
    if (mine !== turn) return;
    query.body = { descriptor: embedded.descriptor };
    showClasses(embedded.classes);
    await ask(0);
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

async function searchRow(row) {
  turn++;
  begin({ source: photo(row), name: `photo ${row}`, row, body: { row } });
  await ask(0);
}

function begin(next) {
  if (query?.source.startsWith("blob:")) URL.revokeObjectURL(query.source);
  query = next;
  found = [];
  byId("query").replaceChildren(element("img", { src: next.source, alt: `the query: ${next.name}` }));
  byId("query-name").textContent = next.name;
  showClasses([]);
  render();
}

async function ask(step) {
  const mine = turn;
  const request = ++requests;
  const parameters = new URLSearchParams({ num_neighbours: COUNTS[Math.min(step, 3)] });
  if (byId("search-folder").value) parameters.set("folder", byId("search-folder").value);
  if (byId("search-class").value) parameters.set("class", byId("search-class").value);
  byId("more").disabled = true;
  try {
    const answer = await post(`/api/search?${parameters}`, query.body);
    if (mine !== turn || request !== requests) return;
    asked = step;
    found = answer.neighbours;
    total = answer.num_photos;
    const milliseconds = (1000 * answer.search_seconds).toFixed(0);
    say(found.length
      ? `${found.length} of ${number(total)} photos, searched in ${milliseconds} ms`
      : "Nothing was found here.");
    byId("more").hidden = found.length < COUNTS[step] || step >= 3;
    render();
  } catch (error) {
    if (mine === turn) say(error.message, true);
  } finally {
    byId("more").disabled = false;
  }
}

function say(words, isError = false) {
  byId("search-status").textContent = words;
  byId("search-status").classList.toggle("error", isError);
}

function showClasses(classes) {
  byId("classes").replaceChildren(...(classes.length ? [element(
    "ol",
    { class: "classes", "aria-label": "likely classes" },
    ...classes.map(({ name, probability }) => element(
      "li", {}, element("span", {}, name), element("span", {}, `${(100 * probability).toFixed(1)} %`),
    )),
  )] : []));
}

function tellThreshold() {
  const value = Number(byId("search-threshold").value);
  byId("search-value").textContent = value.toFixed(3);
  return value;
}

const cards = new Map();

function card(neighbour, at) {
  const { row, path, similarity } = neighbour;
  const button = element(
    "button",
    {
      type: "button",
      class: "photo",
      "data-row": row,
      "aria-label": `${nameOf(path)}, similarity ${similarity.toFixed(3)}, enlarge`,
      click: () => open({ query, photos: found, at }),
    },
    element("img", { src: thumbnail(row), alt: "", loading: "lazy" }),
  );
  return element(
    "li",
    {},
    button,
    element("p", { class: "similarity" }, similarity.toFixed(3)),
    element("p", { class: "path", title: path }, shortName(path)),
  );
}

function render() {
  const threshold = tellThreshold();
  const parts = { same: [], similar: [] };
  found.forEach((neighbour, at) => {
    const isSame = neighbour.similarity >= Math.min(threshold, EQUAL);
    parts[isSame ? "same" : "similar"].push([neighbour, at]);
  });
  for (const [name, members] of Object.entries(parts)) {
    byId(`${name}-part`).hidden = !members.length;
    const title = name === "same" ? "Same photo" : "Similar";
    byId(`${name}-heading`).textContent = `${title} (${members.length})`;
    const items = members.map(([neighbour, at]) => {
      const key = `${turn} ${neighbour.row} ${at}`;
      if (!cards.has(key)) cards.set(key, card(neighbour, at));
      return cards.get(key);
    });
    byId(name).replaceChildren(...items);
  }
  if (!found.length) cards.clear();
}
