// The pages of the page: search, collection, duplicates.
import { byId, plural } from "./dom.js";
import { get, takeToken } from "./server.js";
import * as search from "./search.js";
import * as collection from "./collection.js";
import * as duplicates from "./duplicates.js";

const PAGES = { search, collection, duplicates };

function show() {
  const [name, value] = location.hash.slice(1).split("=");
  const page = name in PAGES ? name : "search";
  for (const each of Object.keys(PAGES)) byId(each).hidden = each !== page;
  for (const link of document.querySelectorAll("nav a[data-page]")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = { search: "Search", collection: "Collection", duplicates: "Duplicates" }[page];
  PAGES[page].show(value);
}

await takeToken();
const info = await get("/api/info");
byId("count").textContent = plural(info.num_photos, "photo");
for (const page of Object.values(PAGES)) page.start(info);
addEventListener("hashchange", () => {
  if (location.hash !== "#content") show();
});
show();
