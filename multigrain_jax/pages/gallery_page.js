"use strict";
// Filter, order and keyboard of a gallery. The address keeps the choice:
// report.html#filter=apple&order=worst
(() => {
  const gallery = document.querySelector(".gallery");
  const controls = document.querySelector(".controls");
  if (!gallery || !controls) return;
  const filter = controls.querySelector("[name=filter]");
  const order = controls.querySelector("[name=order]");
  const count = controls.querySelector("output");
  const rows = [...gallery.children].map((element, place) => ({
    element,
    place,
    name: element.getAttribute("aria-label"),
    similarity: Number(element.dataset.similarity ?? -Infinity),
    text: [...element.querySelectorAll(".title, .row-score")]
      .map((title) => title.textContent)
      .join("\n")
      .toLowerCase(),
    score: Number(element.dataset.averagePrecision),
  }));
  const orders = {
    worst: (a, b) => a.score - b.score,
    best: (a, b) => b.score - a.score,
    listed: (a, b) => a.place - b.place,
    similar: (a, b) => b.similarity - a.similarity || a.place - b.place,
    different: (a, b) => a.similarity - b.similarity || a.place - b.place,
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  };
  const offered = [...order.options].map((option) => option.value);

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const sorted = [...rows].sort(orders[order.value]);
    let shown = 0;
    for (const row of sorted) {
      row.element.hidden = !words.every((word) => row.text.includes(word));
      shown += !row.element.hidden;
    }
    gallery.append(...sorted.map((row) => row.element));
    count.textContent = `${shown} of ${rows.length} ${controls.dataset.rows}`;
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
        ArrowDown: visible[at + 1],
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
  addEventListener("hashchange", readAddress);
  addEventListener("keydown", move);
  controls.hidden = false;
  readAddress();
})();
