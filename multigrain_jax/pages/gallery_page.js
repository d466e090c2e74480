"use strict";
// Filter, order and keyboard of a gallery, of which at first as much is shown as makes no
// endless page. The address keeps the choice: report.html#filter=apple&order=worst
(() => {
  const gallery = document.querySelector(".gallery");
  const controls = document.querySelector(".controls");
  if (!gallery || !controls) return;
  const filter = controls.querySelector("[name=filter]");
  const order = controls.querySelector("[name=order]");
  const count = controls.querySelector("output");
  const more = document.querySelector("button.more");
  const nothing = document.querySelector(".nothing-found");
  // Of a page before "more", and what each "more" adds, in pixels.
  const HEIGHT = 9500;
  // As people type: é is e, and large letters are small ones.
  const plain = (text) =>
    text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const rows = [...gallery.children].map((element, place) => ({
    element,
    place,
    name: element.getAttribute("aria-label"),
    similarity: Number(element.dataset.similarity ?? -Infinity),
    text: plain(
      [
        ...[...element.querySelectorAll(".title, .row-score, .item-note")].map(
          (part) => part.textContent,
        ),
        ...[...element.querySelectorAll(".item")].map((item) => item.dataset.path),
      ].join("\n"),
    ),
    unreadable: "unreadable" in element.dataset,
    score: Number(element.dataset.averagePrecision),
  }));
  const orders = {
    worst: (a, b) => a.unreadable - b.unreadable || a.score - b.score,
    best: (a, b) => a.unreadable - b.unreadable || b.score - a.score,
    listed: (a, b) => a.place - b.place,
    similar: (a, b) => b.similarity - a.similarity || a.place - b.place,
    different: (a, b) => a.similarity - b.similarity || a.place - b.place,
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  };
  const offered = [...order.options].map((option) => option.value);

  let found = [];
  let pages = 1;
  let width = innerWidth;

  function show() {
    const words = plain(filter.value).split(/\s+/).filter(Boolean);
    const sorted = [...rows].sort(orders[order.value]);
    found = sorted.filter((row) => words.every((word) => row.text.includes(word)));
    gallery.append(...sorted.map((row) => row.element));
    count.textContent = `${found.length} of ${rows.length} ${controls.dataset.rows}`;
    nothing.hidden = found.length > 0 || !rows.length;
    pages = 1;
    fill();
  }

  // As many rows as there is room for, one at least.
  function fill() {
    for (const row of rows) row.element.hidden = true;
    for (const row of found) row.element.hidden = false;
    more.hidden = false;
    const heights = found.map((row) => row.element.getBoundingClientRect().height);
    let left = pages * HEIGHT - document.documentElement.scrollHeight;
    for (const height of heights) left += height;
    let shown = 0;
    while (shown < heights.length && (left >= heights[shown] || !shown)) {
      left -= heights[shown];
      shown += 1;
    }
    for (const row of found.slice(shown)) row.element.hidden = true;
    more.hidden = shown === found.length;
    more.textContent = `Show more ${controls.dataset.rows}: ${shown} of ${found.length} are shown`;
  }

  function showMore() {
    const next = found.find((row) => row.element.hidden);
    pages += 1;
    fill();
    next.element.focus({ preventScroll: true });
  }

  function readAddress() {
    const state = new URLSearchParams(location.hash.slice(1));
    filter.value = state.get("filter") ?? "";
    const wanted = state.get("order");
    order.value = offered.includes(wanted) ? wanted : offered[0];
    show();
  }

  function choose() {
    const state = new URLSearchParams();
    if (filter.value) state.set("filter", filter.value);
    if (order.value !== offered[0]) state.set("order", order.value);
    history.replaceState(null, "", `#${state}`);
    show();
  }

  function move(event) {
    const typing = event.target === filter || event.target === order;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "/" && !typing) {
      event.preventDefault();
      filter.focus();
      return;
    }
    if (event.key === "Escape" && event.target === filter) {
      filter.value = "";
      choose();
      return;
    }
    const visible = [...gallery.children].filter((element) => !element.hidden);
    const row = event.target.closest(".gallery-row");
    let next;
    if (event.target === filter && event.key === "ArrowDown") next = visible[0];
    if (row) {
      const at = visible.indexOf(row);
      const items = [...row.querySelectorAll(".item")];
      const item = items.indexOf(event.target.closest(".item"));
      next = {
        ArrowDown: visible[at + 1] ?? (more.hidden ? undefined : more),
        ArrowUp: visible[at - 1] ?? filter,
        Home: visible[0],
        End: visible.at(-1),
        ArrowRight: items[item + 1],
        ArrowLeft: item > 0 ? items[item - 1] : row,
        Escape: row,
      }[event.key];
    }
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }

  for (const { element } of rows) {
    element.tabIndex = 0;
    for (const item of element.querySelectorAll(".item")) item.tabIndex = -1;
  }
  filter.addEventListener("input", choose);
  order.addEventListener("change", choose);
  more.addEventListener("click", showMore);
  nothing.querySelector("button").addEventListener("click", () => {
    filter.value = "";
    choose();
    filter.focus();
  });
  addEventListener("resize", () => {
    // The bars of a phone's browser come and go: that changes the height alone.
    if (innerWidth === width) return;
    width = innerWidth;
    fill();
  });
  addEventListener("hashchange", readAddress);
  addEventListener("keydown", move);
  controls.hidden = false;
  readAddress();
})();
