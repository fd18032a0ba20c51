/** The live feed: newest first, at most so many lines. All text is put in as text, never as HTML. */

const AGAIN_MS = 3_000;

const list = document.getElementById("feed");
const most = Number(list.dataset.shown);
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function setStatus(state, text) {
  const status = document.getElementById("status");
  status.dataset.state = state;
  status.textContent = text;
}

function show({ text, link, at_ms: atMs }) {
  const line = document.createElement("li");
  const what = document.createElement("a");
  what.textContent = text;
  what.href = link;
  const when = document.createElement("time");
  when.textContent = clock.format(new Date(atMs));
  when.dateTime = new Date(atMs).toISOString();
  line.append(what, when);
  list.prepend(line);
  while (list.childElementCount > most) list.lastElementChild.remove();
  document.getElementById("empty").hidden = true;
}

function clear() {
  list.replaceChildren();
  document.getElementById("empty").hidden = false;
}

/** The browser itself connects again, and says which event it had last. */
function connect() {
  const source = new EventSource(list.dataset.events);
  source.addEventListener("open", () => setStatus("open", "Connected"));
  source.addEventListener("activity.happened", (event) => show(JSON.parse(event.data)));
  // Something was missed for good; what is kept follows.
  source.addEventListener("reset", clear);
  source.addEventListener("error", () => {
    setStatus("waiting", "Reconnecting");
    // After an answer that is no stream, as that of a proxy whose server is down, it gives up: begin anew.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => {
        clear();
        connect();
      }, AGAIN_MS);
    }
  });
}

connect();
