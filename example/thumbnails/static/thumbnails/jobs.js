/** The pages about thumbnails: joins the cards to the server, and the form to what was chosen. */

import { ReconnectingSocket } from "../site/reconnecting-socket.js";
import { JobCard, inBytes } from "./job-card.js";

const ASK_EVERY_MS = 5_000;
const SILENT_FOR_MS = 10_000;
const STAY_EVERY_MS = 30 * 60_000;

const LOOK = { type: "look" };

const find = (id) => document.getElementById(id);
const list = find("jobs");
const alone = document.querySelector("main").dataset.job;
const base = list.dataset.base;
const cards = new Map(); // job id -> JobCard

function show(job) {
  let card = cards.get(job.id);
  if (card === undefined) {
    card = new JobCard(find("job-card"), base);
    list.insertBefore(card.element, nextOlder(job.id));
    cards.set(job.id, card);
    find("empty")?.setAttribute("hidden", "");
  }
  card.show(job);
}

function cardOf(task) {
  return [...cards.values()].find((card) => card.task === task);
}

/** Newest first, in whatever order they become known. Returns what a new card is put before; null means the end. */
function nextOlder(id) {
  const older = [...cards.keys()].filter((known) => known < id);
  return cards.get(Math.max(...older))?.element ?? null;
}

function setStatus(state, text) {
  find("status").dataset.state = state;
  find("status").textContent = text;
}

const socket = new ReconnectingSocket(alone === undefined ? "/ws/thumbnails/" : `/ws/thumbnails/${alone}/`, {
  opened() {}, // the server begins with a snapshot
  frame(frame) {
    if (frame.type === "task.progress") {
      cardOf(frame.id)?.progress(frame);
    } else if (frame.type === "job") {
      show(frame.job);
    } else if (frame.type === "snapshot") {
      frame.jobs.forEach(show);
      find("connected-to").textContent = String(frame.pid);
      setStatus("open", "Connected");
    }
  },
  lost(pauseMs) {
    setStatus("waiting", pauseMs > 3000 ? "No connection, trying again" : "Reconnecting");
  },
});

JSON.parse(find("known-jobs").textContent).forEach(show);
socket.connect();
// A channel layer delivers at most once. Whoever waits for news for long asks whether there are any.
setInterval(() => {
  if ([...cards.values()].some((card) => card.silentMs >= SILENT_FOR_MS)) socket.send(LOOK);
}, ASK_EVERY_MS);
// Asking also renews the page's membership in its group, which does not last for ever.
setInterval(() => socket.send(LOOK), STAY_EVERY_MS);

const input = find("upload")?.querySelector("input[type=file]");
input?.addEventListener("change", () => {
  const [file] = input.files;
  if (file !== undefined) find("chosen").textContent = `${file.name}, ${inBytes(file.size)}`;
});
