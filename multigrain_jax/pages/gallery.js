"use strict";
// A photo of a gallery, large: a click or Enter opens it, arrow keys go on to the next.
// Without JavaScript, the photo is a link to its file.
(() => {
  const items = () =>
    [...document.querySelectorAll(".gallery-row:not([hidden]) .item")];
  if (!document.querySelector(".gallery .item")) return;
  const viewer = document.createElement("dialog");
  viewer.className = "viewer";
  viewer.setAttribute("aria-label", "Photo");
  function add(parent, tag, values) {
    const element = Object.assign(document.createElement(tag), values);
    parent.append(element);
    return element;
  }
  const picture = add(viewer, "img", { alt: "" });
  for (const className of ["title", "similarity", "path"]) {
    add(viewer, "p", { className });
  }
  const buttons = add(viewer, "div", { className: "buttons" });
  for (const [name, textContent, ariaLabel] of [
    ["previous", "←", "previous photo"],
    ["next", "→", "next photo"],
    ["copy", "Copy path", null],
    ["close", "Close", null],
  ]) {
    add(buttons, "button", { name, textContent, ariaLabel, type: "button" });
  }
  const file = document.createElement("a");
  file.className = "file";
  file.textContent = "Open file";
  Object.assign(file, { target: "_blank", rel: "noopener" });
  buttons.lastElementChild.before(file);
  add(viewer, "p", { className: "said", role: "status" });
  document.body.append(viewer);
  const part = (selector) => viewer.querySelector(selector);
  let shown;

  function show(item) {
    shown = item;
    const small = item.querySelector("img");
    const link = item.querySelector("a.open");
    const path = item.dataset.path ?? "";
    const text = (selector) => item.querySelector(selector)?.textContent ?? "";
    picture.hidden = !small;
    if (small) picture.src = small.src;
    picture.alt = small?.alt ?? "";
    part(".title").textContent = text(".title");
    const facts = [".similarity", ".badge", ".item-note"].map(text);
    part(".similarity").textContent = facts.filter(Boolean).join(" · ");
    part(".path").textContent = path;
    const missing = item.querySelector(".unreadable")?.textContent;
    part(".said").textContent = missing ? `This photo is ${missing}.` : "";
    part("[name=copy]").hidden = !path;
    part(".file").hidden = !link;
    if (link) part(".file").href = link.href;
    const all = items();
    part("[name=previous]").disabled = all[0] === item;
    part("[name=next]").disabled = all.at(-1) === item;
    // The file itself, where a browser can read it; else the small one stays.
    if (link && small && new URL(link.href).protocol === location.protocol) {
      const large = new Image();
      large.addEventListener("load", () => {
        if (shown === item) picture.src = large.src;
      });
      large.src = link.href;
    }
    if (!viewer.open) viewer.showModal();
  }

  function step(by) {
    const all = items();
    const next = all[all.indexOf(shown) + by];
    if (next) show(next);
  }

  async function copy() {
    const path = part(".path");
    let done = false;
    try {
      await navigator.clipboard.writeText(path.textContent);
      done = true;
    } catch {
      getSelection().selectAllChildren(path);
      done = document.execCommand("copy");
    }
    part(".said").textContent = done
      ? "The path is copied."
      : "The path is selected: copy it with Ctrl+C.";
  }

  // A page that was moved finds the photos beside it where they were, if anywhere.
  function lookElsewhere(event) {
    const small = event.target;
    const item = small.closest?.(".gallery .item");
    if (!item || small.src.startsWith("data:")) return;
    const path = item.dataset.path;
    if (location.protocol === "file:" && !small.dataset.again) {
      small.dataset.again = "yes";
      small.src = `file://${path.split("/").map(encodeURIComponent).join("/")}`;
      item.querySelector("a.open").href = small.src;
      return;
    }
    const words = document.createElement("div");
    words.className = "unreadable";
    words.textContent = "not where it was";
    small.replaceWith(words);
  }

  document.addEventListener("error", lookElsewhere, true);
  for (const target of document.querySelectorAll(".gallery img")) {
    if (target.complete && !target.naturalWidth) lookElsewhere({ target });
  }
  document.addEventListener("click", (event) => {
    const item = event.target.closest(".gallery .item");
    if (!item || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (!event.target.closest("a.open, img, .unreadable")) return;
    event.preventDefault();
    show(item);
  });
  document.addEventListener("keydown", (event) => {
    if (viewer.open || event.key !== "Enter") return;
    if (event.target.matches(".gallery .item")) {
      event.preventDefault();
      show(event.target);
    }
  });
  viewer.addEventListener("keydown", (event) => {
    // The gallery behind has keys of its own.
    event.stopPropagation();
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
  viewer.addEventListener("click", (event) => {
    const name = event.target.name;
    if (name === "previous") step(-1);
    if (name === "next") step(1);
    if (name === "copy") copy();
    if (name === "close" || event.target === viewer) viewer.close();
  });
  viewer.addEventListener("close", () => {
    picture.removeAttribute("src");
    shown.focus();
  });
  for (const link of document.querySelectorAll(".item a.open")) link.tabIndex = -1;
  for (const item of document.querySelectorAll(".gallery .item")) {
    if (!item.closest("[tabindex]")) item.tabIndex = 0;
  }
})();
