// Groups of duplicates: a slider, marks by click or key, rules, undo, lists, moves.
import { byId, element, fill, later, nameOf, number, photo, plural, shortName, size, thumbnail } from "./dom.js";
import { get, post } from "./server.js";
import { reset as resetCollection } from "./collection.js";
import { open, tellMark } from "./viewer.js";

const PER_PAGE = 20;
const PROGRESS_MS = 400;
const KEYS = { k: "keep", a: "away", x: "away", u: null, Delete: "away", Backspace: null };
const WORDS = { keep: "✓ keep", away: "✗ away" };

let info;
let status = { state: "idle" };
let marks = {};
let groups = [];
let request = 0;

export function start(known) {
  info = known;
}

export async function show() {
  if (status.state !== "idle") return;
  byId("duplicates").replaceChildren(...page());
  fill(byId("rule-folder"), "choose a folder…", info.folders.map((f) => f.name));
  byId("group-threshold").value = info.threshold;
  listen();
  try {
    takeMarks(await get("/api/marks"));
    await watch();
  } catch (error) {
    say(error.message, true);
  }
}

function page() {
  const radio = (value, words, checked) => element(
    "label", { class: "check" },
    element("input", { type: "radio", name: "kind", value, checked }), words,
  );
  return [
    element("div", { class: "panel" },
      element("div", { id: "finding" },
        element("label", {}, element("span", { id: "finding-words" }, "Duplicates are being looked for…"),
          element("progress", { id: "finding-progress", class: "progress", max: 1, value: 0 }))),
      element("div", { id: "group-controls", hidden: true },
        element("div", { class: "controls" },
          element("label", {}, element("span", {}, "Same photo from ", element("output", { id: "group-value" })),
            element("input", { id: "group-threshold", type: "range", min: 0, max: 1, step: 0.002 })),
          element("label", {}, "Groups ",
            element("select", { id: "linkage" },
              element("option", { value: "single" }, "connected: each like some other"),
              element("option", { value: "complete" }, "complete: each like all others"))),
          radio("similar", "similar photos", true),
          radio("exact", "exact copies (same bytes)", false)),
        element("div", { class: "controls" },
          element("button", { type: "button", id: "rule-suggested" }, "Keep the suggested of each"),
          element("label", {}, "Keep all in this folder ", element("select", { id: "rule-folder" })),
          element("button", { type: "button", id: "clear" }, "Clear marks"),
          element("button", { type: "button", id: "undo", disabled: true }, "Undo")),
        element("p", { class: "note" },
          "Keys on a photo: k keep, a away, u neither, Enter enlarge, arrow keys to the next; " +
          "Ctrl+Z undo. ★ is a suggestion: the largest picture, then the largest file, then the oldest."))),
    element("p", { class: "status", id: "group-status", role: "status" }),
    element("div", { id: "groups" }),
    element("p", { class: "more" },
      element("button", { type: "button", id: "more-groups", hidden: true }, "More groups")),
    element("div", { class: "panel sticky", id: "actions", hidden: true },
      element("div", { class: "buttons" },
        element("span", { id: "mark-count" }),
        element("a", { class: "button", id: "export-csv", href: "/api/export?format=csv", download: "marks.csv" }, "CSV"),
        element("a", { class: "button", id: "export-paths", href: "/api/export?format=paths", download: "paths.txt" }, "List of paths"),
        element("button", { type: "button", id: "trash", hidden: true }, "Move to trash"),
        element("button", { type: "button", id: "restore", hidden: true }, "Restore from trash"))),
    element("dialog", { id: "ask-dialog", "aria-labelledby": "ask-words" },
      element("p", { id: "ask-words" }),
      element("div", { class: "buttons" },
        element("button", { type: "button", id: "ask-yes" }, "Move"),
        element("button", { type: "button", id: "ask-no" }, "Cancel"))),
  ];
}

function listen() {
  const regroup = later(() => load(0), 120);
  byId("group-threshold").addEventListener("input", () => {
    tellThreshold();
    regroup();
  });
  byId("linkage").addEventListener("change", () => load(0));
  for (const radio of document.querySelectorAll("input[name=kind]")) {
    radio.addEventListener("change", () => load(0));
  }
  byId("rule-suggested").addEventListener("click", () => rule({ rule: "keep_suggested" }));
  byId("rule-folder").addEventListener("change", async (event) => {
    const folder = event.target.value;
    if (folder) await rule({ rule: "keep_folder", folder });
  });
  byId("clear").addEventListener("click", () => rule({ rule: "clear" }));
  byId("undo").addEventListener("click", undo);
  byId("more-groups").addEventListener("click", () => load(groups.length));
  new IntersectionObserver(([entry]) => {
    const more = byId("more-groups");
    if (entry.isIntersecting && !more.hidden && !more.disabled) load(groups.length);
  }, { rootMargin: "600px" }).observe(byId("more-groups"));
  byId("groups").addEventListener("keydown", onKey);
  addEventListener("keydown", (event) => {
    const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName) && event.target.type !== "range";
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing && !byId("duplicates").hidden) {
      event.preventDefault();
      undo();
    }
  });
  byId("trash").addEventListener("click", moveToTrash);
  byId("restore").addEventListener("click", restore);
}

/** Begin, and follow until it is there. */
async function watch() {
  status = await post("/api/duplicates", {});
  while (status.state === "pairs" || status.state === "files") {
    const percent = Math.round(100 * status.progress);
    const what = status.state === "pairs" ? "All photos are compared" : "Files are compared";
    byId("finding-words").textContent = `${what}: ${percent} % after ${Math.round(status.seconds)} s`;
    byId("finding-progress").value = status.progress;
    await new Promise((done) => setTimeout(done, PROGRESS_MS));
    status = await get("/api/duplicates");
  }
  if (status.state === "failed") throw new Error(status.error);
  byId("finding").hidden = true;
  byId("group-controls").hidden = false;
  byId("actions").hidden = false;
  const slider = byId("group-threshold");
  const value = Math.max(Number(slider.value), status.lowest_threshold);
  slider.min = Math.ceil(500 * status.lowest_threshold) / 500;
  slider.value = value;
  tellThreshold();
  tellTrash();
  await load(0);
}

function chosen() {
  return {
    threshold: Number(byId("group-threshold").value),
    linkage: byId("linkage").value,
    kind: document.querySelector("input[name=kind]:checked").value,
  };
}

function tellThreshold() {
  byId("group-value").textContent = Number(byId("group-threshold").value).toFixed(3);
}

async function load(first) {
  const mine = ++request;
  byId("more-groups").disabled = true;
  try {
    const parameters = new URLSearchParams({ ...chosen(), first, count: PER_PAGE });
    const answer = await get(`/api/groups?${parameters}`);
    if (mine !== request) return;
    if (first === 0) {
      groups = [];
      byId("groups").replaceChildren();
    }
    groups.push(...answer.groups);
    byId("groups").append(...answer.groups.map(describe));
    byId("more-groups").hidden = groups.length >= answer.num_groups;
    const some = answer.num_groups;
    say(some
      ? `${plural(some, "group")} of ${number(answer.num_photos)} photos`
      : "No duplicates at this similarity.");
  } catch (error) {
    if (mine === request) say(error.message, true);
  } finally {
    if (mine === request) byId("more-groups").disabled = false;
  }
}

function describe(group) {
  const some = group.num_compared < group.num_photos ? ` of the first ${number(group.num_compared)}` : "";
  const lowest = group.same_bytes ? "the same bytes" : `lowest similarity${some} ${group.lowest.toFixed(3)}`;
  const more = group.num_photos > group.photos.length ? `, ${group.photos.length} of them shown` : "";
  const heading = `Group ${group.number}: ${group.num_photos} photos${more}, ${lowest}`;
  return element(
    "section",
    { class: "group", "aria-label": `Group ${group.number}` },
    element("h3", {}, heading),
    element("ul", { class: "grid" }, ...group.photos.map((shown, at) => card(group, shown, at))),
  );
}

function card(group, shown, at) {
  const { row, path } = shown;
  const suggested = row === group.suggested;
  const dimensions = shown.width ? `${shown.width} × ${shown.height}` : "not readable";
  const date = new Date(1000 * shown.modified).toISOString().slice(0, 10);
  const button = element(
    "button",
    {
      type: "button", class: "photo", "data-row": row,
      click: () => enlarge(group, at),
    },
    element("img", { src: thumbnail(row), alt: "", loading: "lazy" }),
  );
  const item = element(
    "li",
    { "data-row": row, "data-name": nameOf(path) },
    button,
    element("p", { class: "mark" }),
    element("p", { class: "path", title: path }, shortName(path)),
    element("p", { class: "facts" }, `${suggested ? "★ suggested · " : ""}${dimensions} · ${size(shown.size)} · ${date}`),
    element("div", { class: "buttons" },
      element("button", { type: "button", class: "small", "data-set": "keep", "aria-label": `keep ${nameOf(path)}`, click: () => toggle(row, "keep") }, "Keep"),
      element("button", { type: "button", class: "small", "data-set": "away", "aria-label": `away with ${nameOf(path)}`, click: () => toggle(row, "away") }, "Away")),
  );
  paint(item);
  return item;
}

function enlarge(group, at) {
  const kept = group.photos.find(({ row }) => row === group.suggested) ?? group.photos[0];
  open({
    query: { source: photo(kept.row), name: nameOf(kept.path), row: kept.row },
    photos: group.photos,
    at,
    onMark: (key, { row }) => {
      if (!(key in KEYS)) return false;
      set({ [row]: KEYS[key] });
      return true;
    },
    markOf: (row) => WORDS[marks[row]],
  });
}

function paint(item) {
  const mark = marks[item.dataset.row];
  if (mark) item.dataset.mark = mark;
  else delete item.dataset.mark;
  item.querySelector(".mark").textContent = mark ? WORDS[mark] : "";
  const name = item.dataset.name;
  item.querySelector(".photo").setAttribute(
    "aria-label", `${name}, ${mark ? `marked ${mark}` : "not marked"}, enlarge`,
  );
  for (const button of item.querySelectorAll("[data-set]")) {
    button.setAttribute("aria-pressed", String(button.dataset.set === mark));
  }
}

function takeMarks(answer) {
  marks = answer.marks;
  for (const item of document.querySelectorAll("#groups li")) paint(item);
  tellMark();
  byId("undo").disabled = !answer.can_undo;
  const count = (mark) => Object.values(marks).filter((each) => each === mark).length;
  byId("mark-count").textContent = `${number(count("keep"))} to keep, ${number(count("away"))} to go`;
  byId("trash").disabled = count("away") === 0;
}

async function set(changes) {
  try {
    takeMarks(await post("/api/marks", { marks: changes }));
  } catch (error) {
    say(error.message, true);
  }
}

const toggle = (row, mark) => set({ [row]: marks[row] === mark ? null : mark });

async function rule(sent) {
  try {
    takeMarks(await post("/api/rules", { ...sent, ...chosen() }));
  } catch (error) {
    say(error.message, true);
  }
}

async function undo() {
  try {
    takeMarks(await post("/api/marks/undo", {}));
  } catch (error) {
    say(error.message, true);
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const item = event.target.closest("li");
  if (!item || !event.target.classList.contains("photo")) return;
  const all = [...document.querySelectorAll("#groups .photo")];
  const at = all.indexOf(event.target);
  if (event.key in KEYS) set({ [item.dataset.row]: KEYS[event.key] });
  else if (event.key === "ArrowRight") all[at + 1]?.focus();
  else if (event.key === "ArrowLeft") all[at - 1]?.focus();
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") otherGroup(event)?.focus();
  else return;
  event.preventDefault();
}

function otherGroup(event) {
  const own = event.target.closest(".group");
  const next = event.key === "ArrowDown" ? own.nextElementSibling : own.previousElementSibling;
  return next?.querySelector(".photo");
}

function tellTrash() {
  byId("trash").hidden = !status.allow_moves;
  byId("restore").hidden = !status.allow_moves || !status.num_in_trash;
  byId("restore").textContent = `Restore ${number(status.num_in_trash)} from trash`;
}

async function moveToTrash() {
  const rows = Object.keys(marks).filter((row) => marks[row] === "away").map(Number);
  const empty = groups.filter(({ photos }) => photos.every(({ row }) => marks[row] === "away")).length;
  const warning = empty ? ` Of ${plural(empty, "group")} here nothing is kept.` : "";
  if (!(await ask(`Move ${plural(rows.length, "file")} to the trash?${warning} It can be undone.`))) return;
  try {
    const answer = await post("/api/trash", { rows });
    await afterMoves();
    const stayed = answer.problems.length
      ? `; ${answer.problems.length} stayed, the first since ${answer.problems[0].reason}` : "";
    say(`Moved to the trash: ${plural(answer.moved.length, "file")}${stayed}`, answer.problems.length > 0);
  } catch (error) {
    say(error.message, true);
  }
}

async function restore() {
  try {
    const answer = await post("/api/restore", {});
    await afterMoves();
    const stayed = answer.problems.length ? `; not back: ${answer.problems.join("; ")}` : "";
    say(`Brought back: ${plural(answer.restored, "file")}${stayed}`, answer.problems.length > 0);
  } catch (error) {
    say(error.message, true);
  }
}

async function afterMoves() {
  status = await get("/api/duplicates");
  tellTrash();
  byId("count").textContent = plural(status.num_photos, "photo");
  resetCollection(status.folders);
  takeMarks(await get("/api/marks"));
  await load(0);
}

function ask(words) {
  const dialog = byId("ask-dialog");
  byId("ask-words").textContent = words;
  dialog.showModal();
  return new Promise((done) => {
    const close = (answer) => {
      dialog.onclose = null;
      dialog.close();
      done(answer);
    };
    byId("ask-yes").onclick = () => close(true);
    byId("ask-no").onclick = () => close(false);
    dialog.onclose = () => done(false);
  });
}

function say(words, isError = false) {
  byId("group-status").textContent = words;
  byId("group-status").classList.toggle("error", isError);
}
