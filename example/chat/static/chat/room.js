/** A room: joins the page's form, its transcript and its list of people to the server. */

import { ReconnectingSocket } from "../site/reconnecting-socket.js";
import { People } from "./people.js";
import { Transcript } from "./transcript.js";

const HERE_EVERY_MS = 25_000;
const NAME_KEY = "chat-name";

const find = (id) => document.getElementById(id);
const room = find("room").dataset.room;
// Tells this open page from all others, also after it had to connect again.
const page = crypto.randomUUID();
let ownName = localStorage.getItem(NAME_KEY) ?? "";

const transcript = new Transcript({
  scroller: find("transcript"),
  list: find("messages"),
  empty: find("empty"),
  ownPage: page,
});
const people = new People(find("people"), find("people-count"), page, (name) => transcript.event(`${name} is gone`));

const socket = new ReconnectingSocket(`/ws/chat/${room}/`, {
  opened() {
    people.clear();
    join();
  },
  frame(frame) {
    show[frame.type]?.(frame);
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
  "chat.said"(said) {
    people.heard(said.page, said.name);
    transcript.said(said);
  },
  "chat.joined"({ page: joined, name }) {
    const before = people.heard(joined, name);
    if (joined === page) setStatus("open", "Connected");
    if (before === undefined) transcript.event(joined === page ? "You joined" : `${name} joined`);
    else if (before !== name) transcript.event(`${before} is now called ${name}`);
  },
  "chat.present"({ page: present, name }) {
    people.heard(present, name);
  },
  "chat.left"({ page: left, name }) {
    people.left(left);
    transcript.event(`${name} left`);
  },
  "chat.announced"(announced) {
    transcript.announced(announced);
  },
};

function join() {
  socket.send({ type: "join", page, name: ownName });
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
  setInterval(() => socket.send({ type: "here" }), HERE_EVERY_MS);
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
