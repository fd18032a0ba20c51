/** Who is in the room: each person once, in however many tabs. */

export class People {
  #list;
  #count;
  #own;
  #people = new Map(); // person -> name

  /** Shows the people in `list` and their number in `count`; `own` is the person in front of this page. */
  constructor(list, count, own) {
    this.#list = list;
    this.#count = count;
    this.#own = own;
  }

  /** Takes a list as the server has it: person to {name}. Returns the own name until now, or undefined. */
  set(people) {
    const before = this.#people.get(this.#own);
    this.#people = new Map(Object.entries(people).map(([person, { name }]) => [person, name]));
    this.#show();
    return before;
  }

  /** Applies a change of that list. Calls `event` with a line about each. */
  change({ joins, leaves, updates }, event) {
    for (const [person, { name }] of Object.entries(leaves)) {
      this.#people.delete(person);
      event(`${name} left`);
    }
    for (const [person, { name }] of Object.entries(joins)) {
      this.#people.set(person, name);
      event(`${name} joined`);
    }
    for (const [person, { name }] of Object.entries(updates)) {
      event(`${this.#people.get(person)} is now called ${name}`);
      this.#people.set(person, name);
    }
    this.#show();
  }

  #show() {
    const sorted = [...this.#people].sort(([, one], [, other]) => one.localeCompare(other));
    this.#count.textContent = String(sorted.length);
    this.#list.replaceChildren(
      ...sorted.map(([person, name]) => {
        const label = document.createElement("span");
        label.textContent = person === this.#own ? `${name} (you)` : name;
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
