/** A room: joins the page's form, its transcript and its list of people to the server. */

import { ReconnectingSocket } from "../site/reconnecting-socket.js";
import { People } from "./people.js";
import { Transcript } from "./transcript.js";

const STAY_EVERY_MS = 3_600_000; // a membership lasts for a day
const BANNER_MS = 60_000;
const NAME_KEY = "chat-name";
const PERSON_KEY = "chat-person";

const find = (id) => document.getElementById(id);
const room = find("room").dataset.room;
// The same in all tabs of this browser: whoever has several of them open is in the room once.
const person = localStorage.getItem(PERSON_KEY) ?? crypto.randomUUID();
localStorage.setItem(PERSON_KEY, person);
let bannerTimer = null;
let ownName = localStorage.getItem(NAME_KEY) ?? "";

const transcript = new Transcript({
  scroller: find("transcript"),
  list: find("messages"),
  empty: find("empty"),
  own: person,
});
const people = new People(find("people"), find("people-count"), person);

// The position of what was shown last, to come back with; see docs/history.md.
let position = null;

const socket = new ReconnectingSocket(`/ws/chat/${room}/`, {
  opened: join,
  frame(frame) {
    show[frame.type]?.(frame);
    position = frame.__position__ ?? position;
  },
  lost(pauseMs) {
    setStatus("waiting", pauseMs > 3000 ? "No connection, trying again" : "Reconnecting");
  },
});

/** What to do with each type of frame; see messages.py. */
const show = {
  welcome({ pid }) {
    find("connected-to").textContent = String(pid);
  },
  "caught-up"({ messages, position: now, recovered }) {
    if (position !== null) {
      if (!recovered) transcript.clear(); // what is kept comes from its beginning
      tell(recovered ? "caught up" : "some messages are gone");
    }
    for (const message of messages) show[message.type]?.(message);
    position = now;
  },
  here({ people: present }) {
    const before = people.set(present);
    setStatus("open", "Connected");
    if (before === undefined) transcript.event("You joined");
    else if (before !== present[person].name) transcript.event(`${before} is now called ${present[person].name}`);
  },
  "presence.diff"(changed) {
    people.change(changed, (line) => transcript.event(line));
  },
  "chat.said"(said) {
    transcript.said(said);
  },
  "chat.announced"(announced) {
    transcript.announced(announced);
  },
};

function join() {
  socket.send({ type: "join", person, name: ownName, since: position });
}

function tell(text) {
  find("banner").textContent = text;
  find("banner").hidden = false;
  clearTimeout(bannerTimer);
  bannerTimer = setTimeout(() => (find("banner").hidden = true), BANNER_MS);
}

function setStatus(state, text) {
  find("status").dataset.state = state;
  find("status").textContent = text;
  find("send").disabled = state !== "open";
}

function askName() {
  find("name").value = ownName;
  find("name-dialog").showModal();
  find("name").select();
}

function enter() {
  find("own-name").textContent = ownName;
  setStatus("waiting", "Connecting");
  socket.connect();
  setInterval(() => socket.send({ type: "stay" }), STAY_EVERY_MS);
}

find("name-form").addEventListener("submit", (event) => {
  const name = find("name").value.trim();
  if (name === "") {
    event.preventDefault(); // spaces alone are no name
    return;
  }
  const first = ownName === "";
  ownName = name;
  localStorage.setItem(NAME_KEY, name);
  if (first) {
    enter();
  } else {
    find("own-name").textContent = name;
    join();
  }
});

find("name-dialog").addEventListener("close", () => find("text").focus());
find("rename").addEventListener("click", askName);

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = find("text");
  const text = input.value.trim();
  // While disconnected the text stays in the field.
  if (text !== "" && socket.send({ type: "say", text })) input.value = "";
});

if (ownName === "") askName();
else enter();
