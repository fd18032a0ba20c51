/** One job on the page. Everything that people wrote is put in as text, never as HTML. */

const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

export class JobCard {
  #base;
  #job = null;
  #done = 0; // steps, as far as this page has heard
  #note = "";
  #heardAt = 0;
  #parts;

  /**
   * @param {HTMLTemplateElement} template of the card
   * @param {string} base address of the pages about thumbnails
   */
  constructor(template, base) {
    this.#base = base;
    this.element = template.content.firstElementChild.cloneNode(true);
    const find = (name) => this.element.querySelector(name);
    this.#parts = {
      article: find(".job"),
      name: find(".job-name"),
      state: find(".job-state"),
      facts: find(".job-facts"),
      steps: find(".job-steps"),
      bar: find("progress"),
      count: find(".job-count"),
      note: find(".job-note"),
      retry: find(".job-retry"),
      thumbnails: find(".thumbnails"),
    };
  }

  /** The id of its latest task; "" before there is one. */
  get task() {
    return this.#job.task;
  }

  /** For how many milliseconds an unfinished job has been silent. */
  get silentMs() {
    return isOver(this.#job) ? 0 : performance.now() - this.#heardAt;
  }

  /** Shows how a job stands. The server tells that in the order in which it was so. */
  show(job) {
    const before = this.#job;
    this.#job = job;
    // What was told of this very task may be further than what was read.
    const known = before !== null && before.task === job.task && !isOver(job) ? this.#done : 0;
    this.#done = Math.max(known, job.thumbnails.length);
    this.#note = job.note || (known > 0 ? this.#note : "");
    this.#heardAt = performance.now();

    const { article, name, state, facts, steps, note, retry } = this.#parts;
    article.dataset.job = job.id;
    article.dataset.state = job.state;
    name.textContent = job.name;
    name.href = `${this.#base}${job.id}/`;
    state.textContent = { waiting: "Waiting", working: "Working", done: "Done", failed: "Failed" }[job.state];
    facts.textContent = [`${job.width} × ${job.height}`, inBytes(job.bytes)]
      .map((fact) => fact.replaceAll(" ", "\u00a0")) // lines break between facts, not inside one
      .join(" · ");
    steps.hidden = isOver(job);
    note.textContent = job.error;
    note.hidden = job.error === "";
    retry.hidden = job.state !== "failed";
    retry.action = `${this.#base}${job.id}/retry/`;
    this.#showBar();
    this.#showThumbnails(before);
  }

  /** Moves the bar: the task has told how far it is. */
  progress({ done, note }) {
    if (isOver(this.#job)) return;
    this.#heardAt = performance.now();
    this.#done = Math.max(this.#done, done);
    this.#note = note;
    this.#showBar();
  }

  #showBar() {
    const { bar, count } = this.#parts;
    bar.max = this.#job.steps;
    if (this.#job.state === "waiting" && this.#done === 0) bar.removeAttribute("value"); // that of a thing not begun
    else bar.value = this.#done;
    count.textContent = [`${this.#done} of ${this.#job.steps}`, this.#note].filter(Boolean).join(", ");
  }

  #showThumbnails(before) {
    const { thumbnails } = this.#parts;
    const { id, name, thumbnails: made } = this.#job;
    // Those shown already stay, so that pictures do not flicker.
    const kept = before === null ? 0 : before.thumbnails.length;
    const template = document.getElementById("thumbnail");
    for (const { size, width, height, bytes } of made.slice(kept)) {
      const item = template.content.firstElementChild.cloneNode(true);
      const address = `${this.#base}${id}/${size}.webp`;
      const image = item.querySelector("img");
      Object.assign(image, { src: address, width, height, alt: `${name} in ${width} by ${height} pixels` });
      item.querySelector("a").href = address;
      item.querySelector(".thumbnail-size").textContent = `${width} × ${height}`;
      item.querySelector(".thumbnail-bytes").textContent = inBytes(bytes);
      thumbnails.append(item);
    }
  }
}

function isOver(job) {
  return job.state === "done" || job.state === "failed";
}

/** A number of bytes as people read it: 1.5 KB, 2.3 MB. */
export function inBytes(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  if (bytes < 1024 * 1024) return `${number.format(bytes / 1024)} KB`;
  return `${number.format(bytes / (1024 * 1024))} MB`;
}
