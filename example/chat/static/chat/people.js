/** Who is in the room, as far as this page has heard. */

// Pages say "here" every 25 seconds, and at least once a minute in the background, where browsers slow timers down.
const GONE_AFTER_MS = 130_000;
const LOOK_EVERY_MS = 10_000;

export class People {
  #list;
  #count;
  #ownPage;
  #people = new Map(); // page id -> {name, heardAt}

  /** Shows the people in `list` and their number in `count`; `gone(name)` is called for one who was not heard of for long. */
  constructor(list, count, ownPage, gone) {
    this.#list = list;
    this.#count = count;
    this.#ownPage = ownPage;
    setInterval(() => this.#forgetSilent(gone), LOOK_EVERY_MS);
  }

  /** Notes that somebody is here. Returns the name by which that page was known until now, or undefined. */
  heard(page, name) {
    const before = this.#people.get(page)?.name;
    this.#people.set(page, { name, heardAt: performance.now() });
    if (before !== name) this.#show();
    return before;
  }

  left(page) {
    if (this.#people.delete(page)) this.#show();
  }

  /** After a lost connection nothing is known; the others will answer. */
  clear() {
    this.#people.clear();
    this.#show();
  }

  #forgetSilent(gone) {
    const oldest = performance.now() - GONE_AFTER_MS;
    for (const [page, { name, heardAt }] of this.#people) {
      if (page === this.#ownPage || heardAt >= oldest) continue;
      this.left(page);
      gone(name);
    }
  }

  #show() {
    const sorted = [...this.#people].sort(([, one], [, other]) => one.name.localeCompare(other.name));
    this.#count.textContent = String(sorted.length);
    this.#list.replaceChildren(
      ...sorted.map(([page, { name }]) => {
        const label = document.createElement("span");
        label.textContent = page === this.#ownPage ? `${name} (you)` : name;
        const item = document.createElement("li");
        item.append(face(name), label);
        return item;
      }),
    );
  }
}

/** A round picture with the first letter of a name, in that name's colour. */
export function face(name) {
  const picture = document.createElement("span");
  picture.className = "face";
  picture.setAttribute("aria-hidden", "true");
  picture.style.setProperty("--hue", hueOf(name));
  picture.textContent = [...name][0].toUpperCase();
  return picture;
}

/** The same name has the same colour on every page. Returns degrees. */
export function hueOf(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 3600;
  return sum / 10;
}
