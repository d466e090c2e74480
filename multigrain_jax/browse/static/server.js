// Requests to the server, with the token where one is needed.
import { byId } from "./dom.js";

/** What a request answers; an Error with the server's words where it is refused. */
export async function get(path) {
  return answer(() => fetch(path));
}

export async function post(path, body) {
  const isPhoto = body instanceof Blob;
  const headers = { "content-type": isPhoto ? "application/octet-stream" : "application/json" };
  const sent = isPhoto ? body : JSON.stringify(body);
  return answer(() => fetch(path, { method: "POST", headers, body: sent }));
}

async function answer(ask) {
  for (let attempt = 0; ; attempt++) {
    const found = await ask();
    if (found.ok) return found.json();
    if (found.status === 401) {
      await askForToken();
      continue;
    }
    if (found.status === 503 && attempt < 5) {
      const seconds = Number(found.headers.get("retry-after")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    let words = `the server answered ${found.status}`;
    try {
      words = (await found.json()).error ?? words;
    } catch {
      // no JSON: the status says it
    }
    throw new Error(words);
  }
}

/** Take the token that the address has, once; it does not stay there. */
export async function takeToken() {
  const found = location.hash.match(/^#token=(.*)$/);
  if (!found) return;
  history.replaceState(null, "", location.pathname);
  await sendToken(decodeURIComponent(found[1]));
}

async function sendToken(token) {
  const headers = { authorization: `Bearer ${token}` };
  const found = await fetch("/api/session", { method: "POST", headers });
  return found.ok;
}

let asking = null;

function askForToken() {
  asking ??= new Promise((done) => {
    const dialog = byId("token-dialog");
    byId("token-form").onsubmit = async (event) => {
      event.preventDefault();
      if (await sendToken(byId("token").value)) {
        dialog.close();
        asking = null;
        done();
      } else {
        byId("token-note").textContent = "That is not the token.";
      }
    };
    dialog.oncancel = (event) => event.preventDefault();
    dialog.showModal();
  });
  return asking;
}
