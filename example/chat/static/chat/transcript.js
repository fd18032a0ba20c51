/** The conversation on the page. Everything that people wrote is put in as text, never as HTML. */

import { face, hueOf } from "./people.js";

const MOST_LINES = 500;
const NEAR_END_PX = 80;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

export class Transcript {
  #scroller;
  #list;
  #empty;
  #own;

  /** Lines go into `list`, inside `scroller`; `empty` is hidden once somebody has said something. */
  constructor({ scroller, list, empty, own }) {
    this.#scroller = scroller;
    this.#list = list;
    this.#empty = empty;
    this.#own = own;
    // A phone's keyboard makes the window smaller: stay with the latest line.
    new ResizeObserver(() => this.#toEnd()).observe(scroller);
  }

  said({ person, name, text, sent_at_ms: sentAtMs }) {
    const own = person === this.#own;
    const line = element("li", "message");
    line.dataset.person = person;
    line.style.setProperty("--hue", hueOf(name));
    line.classList.toggle("own", own);
    const previous = this.#list.lastElementChild;
    line.classList.toggle("more", previous?.dataset.person === person && previous.dataset.name === name);
    line.dataset.name = name;

    const byline = element("span", "byline");
    byline.append(element("span", own ? "unseen" : "author", own ? "You" : name), timeOf(sentAtMs));
    if (!own) line.append(face(name));
    line.append(byline, element("p", "bubble", text));
    this.#empty.hidden = true;
    this.#append(line, own);
  }

  /** Forget what was shown. */
  clear() {
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }

  /** A line about the room itself: somebody came, left, or has another name. */
  event(text) {
    this.#append(element("li", "event", text), false);
  }

  /** What the site itself has to say, in every room. */
  announced({ text, sent_at_ms: sentAtMs }) {
    const line = element("li", "announcement");
    const byline = element("span", "byline");
    byline.append(element("span", "author", "Announcement"), timeOf(sentAtMs));
    line.append(byline, element("p", "", text));
    this.#empty.hidden = true;
    this.#append(line, false);
  }

  #append(line, scrollAlways) {
    const follow = scrollAlways || this.#isAtEnd();
    this.#list.append(line);
    while (this.#list.childElementCount > MOST_LINES) this.#list.firstElementChild.remove();
    if (follow) this.#toEnd();
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  }

  #toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function timeOf(atMs) {
  const date = new Date(atMs);
  const time = element("time", "", clock.format(date));
  time.dateTime = date.toISOString();
  return time;
}
