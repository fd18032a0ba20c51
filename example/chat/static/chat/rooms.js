/** The list of rooms: how many people are in each, as they come and go. */

import { ReconnectingSocket } from "../site/reconnecting-socket.js";

const counts = new Map();
for (const place of document.querySelectorAll(".room-people")) counts.set(place.dataset.room, place);

const socket = new ReconnectingSocket("/ws/chat/", {
  opened() {},
  frame({ type, room, count }) {
    if (type === "people" && counts.has(room)) show(counts.get(room), count);
  },
  lost() {
    for (const place of counts.values()) show(place, 0);
  },
});

function show(place, count) {
  place.textContent = count === 0 ? "" : `${count} here`;
}

if (counts.size > 0) socket.connect();
