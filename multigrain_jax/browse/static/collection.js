// All photos by folder. Only those near the window are elements, however many there are.
import { byId, element, fill, later, nameOf, number, plural, thumbnail } from "./dom.js";
import { get } from "./server.js";

const BLOCK = 500; // photos per request
const HEADING = 44; // pixels
const CAPTION = 26;
const GAP = 8;
const AHEAD = 800; // pixels above and below the window

let folders = [];
let sections = []; // {name, count, first, top, rows}
let columns = 1;
let tile = 160;
let total = 0;
let active = 0; // the photo that the keyboard is at
let turn = 0;
const blocks = new Map();
const shown = new Map();
const wall = byId("wall");

export function start(info) {
  folders = info.folders;
  fill(byId("collection-folder"), "all folders", folders.map((f) => f.name));
  fill(byId("collection-class"), "all classes", info.classes);
  for (const id of ["collection-folder", "collection-class"]) {
    byId(id).addEventListener("change", reset);
  }
  addEventListener("scroll", () => requestAnimationFrame(render), { passive: true });
  addEventListener("resize", later(layout, 100));
  wall.addEventListener("keydown", move);
  wall.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-row]");
    if (button?.dataset.row) location.hash = `#search=${button.dataset.row}`;
  });
}

export function show() {
  if (!sections.length) reset();
  else layout();
}

/** Begin anew: another folder was chosen, or photos were moved away. */
export function reset(counts) {
  if (Array.isArray(counts)) folders = counts;
  turn++;
  blocks.clear();
  const folder = byId("collection-folder").value;
  const className = byId("collection-class").value;
  const chosen = folders.filter(({ name }) =>
    (!folder || name === folder || name.startsWith(`${folder}/`)) &&
    (!className || name.slice(name.lastIndexOf("/") + 1) === className));
  total = 0;
  sections = chosen.map(({ name, count }) => {
    const section = { name, count, first: total };
    total += count;
    return section;
  });
  byId("collection-status").textContent =
    `${plural(total, "photo")} in ${plural(sections.length, "folder")}`;
  active = 0;
  if (!byId("collection").hidden) layout();
}

function layout() {
  if (byId("collection").hidden) return;
  const width = wall.clientWidth;
  columns = Math.max(2, Math.floor((width + GAP) / (168 + GAP)));
  tile = Math.floor((width - GAP * (columns - 1)) / columns);
  let top = 0;
  for (const section of sections) {
    section.top = top;
    section.rows = Math.ceil(section.count / columns);
    top += HEADING + section.rows * (tile + CAPTION + GAP);
  }
  wall.style.height = `${top}px`;
  for (const item of shown.values()) item.remove();
  shown.clear();
  render();
}

const rowHeight = () => tile + CAPTION + GAP;

function render() {
  if (byId("collection").hidden) return;
  const above = -wall.getBoundingClientRect().top;
  const from = above - AHEAD;
  const to = above + innerHeight + AHEAD;
  const wanted = new Set();
  for (let at = sectionAt(from); at < sections.length && sections[at].top < to; at++) {
    const section = sections[at];
    wanted.add(`h${at}`);
    if (!shown.has(`h${at}`)) addHeading(section, at);
    const start = section.top + HEADING;
    const first = Math.max(0, Math.floor((from - start) / rowHeight()));
    const last = Math.min(section.rows, Math.ceil((to - start) / rowHeight()));
    for (let n = first * columns; n < Math.min(section.count, last * columns); n++) {
      wanted.add(section.first + n);
      if (!shown.has(section.first + n)) addTile(section, n);
    }
  }
  for (const [key, item] of shown) {
    // What has the focus stays, or the keyboard would lose its place.
    if (!wanted.has(key) && !item.contains(document.activeElement)) {
      item.remove();
      shown.delete(key);
    }
  }
}

function sectionAt(pixel) {
  let low = 0;
  let high = sections.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (sections[middle].top <= pixel) low = middle;
    else high = middle - 1;
  }
  return low;
}

function addHeading(section, at) {
  const item = element("h2", { class: "wall-heading" }, `${section.name} (${number(section.count)})`);
  item.style.top = `${section.top}px`;
  wall.append(item);
  shown.set(`h${at}`, item);
}

function addTile(section, n) {
  const index = section.first + n;
  const button = element("button", {
    type: "button", class: "photo", "data-index": index, "aria-label": "a photo",
    tabindex: index === active ? 0 : -1,
  });
  const caption = element("p", { class: "path" });
  const item = element("div", { class: "wall-tile" }, button, caption);
  item.style.top = `${section.top + HEADING + Math.floor(n / columns) * rowHeight()}px`;
  item.style.left = `${(n % columns) * (tile + GAP)}px`;
  item.style.width = `${tile}px`;
  button.style.height = `${tile}px`;
  wall.append(item);
  shown.set(index, item);
  fillTile(item, button, caption, index);
}

async function fillTile(item, button, caption, index) {
  const photos = await block(Math.floor(index / BLOCK));
  const photo = photos?.[index % BLOCK];
  if (!photo || !item.isConnected) return;
  button.dataset.row = photo.row;
  button.setAttribute(
    "aria-label", `${nameOf(photo.path)}, ${index + 1} of ${total}, find similar photos`,
  );
  button.append(element("img", { src: thumbnail(photo.row), alt: "" }));
  caption.textContent = nameOf(photo.path);
  caption.title = photo.path;
}

function block(number) {
  if (!blocks.has(number)) {
    const parameters = new URLSearchParams({ first: number * BLOCK, count: BLOCK });
    for (const name of ["folder", "class"]) {
      const value = byId(`collection-${name}`).value;
      if (value) parameters.set(name, value);
    }
    const mine = turn;
    const asked = get(`/api/collection?${parameters}`).then(
      (answer) => (mine === turn ? answer.photos : null),
      (error) => {
        blocks.delete(number);
        byId("collection-status").textContent = error.message;
        return null;
      },
    );
    blocks.set(number, asked);
  }
  return blocks.get(number);
}

function move(event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  let next;
  if (event.key in steps) next = active + steps[event.key];
  else if (event.key === "Home") next = 0;
  else if (event.key === "End") next = total - 1;
  else return;
  event.preventDefault();
  const last = active;
  active = Math.min(total - 1, Math.max(0, next));
  shown.get(last)?.querySelector("button").setAttribute("tabindex", "-1");
  const section = sections.findLast((each) => each.first <= active);
  const row = Math.floor((active - section.first) / columns);
  const top = section.top + HEADING + row * rowHeight();
  const origin = wall.getBoundingClientRect().top + scrollY;
  const bar = 120;
  if (origin + top - bar < scrollY) scrollTo(0, origin + top - bar);
  else if (origin + top + rowHeight() > scrollY + innerHeight) {
    scrollTo(0, origin + top + rowHeight() - innerHeight + GAP);
  }
  render();
  const button = shown.get(active)?.querySelector("button");
  button?.setAttribute("tabindex", "0");
  button?.focus({ preventScroll: true });
}
