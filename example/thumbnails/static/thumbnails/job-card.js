/** One job on the page. Everything that people wrote is put in as text, never as HTML. */

const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

export class JobCard {
  #base;
  #interruptedAfterMs;
  #job = null;
  #heardAt = 0;
  #parts;

  /**
   * @param {HTMLTemplateElement} template of the card
   * @param {string} base address of the pages about thumbnails
   * @param {number} interruptedAfterMs how long an unfinished job may go without news
   */
  constructor(template, base, interruptedAfterMs) {
    this.#base = base;
    this.#interruptedAfterMs = interruptedAfterMs;
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
      again: find(".job-again"),
      thumbnails: find(".thumbnails"),
    };
  }

  /** Whether there may be news that did not reach this page. */
  get isInterrupted() {
    if (this.#job === null || isOver(this.#job)) return false;
    return performance.now() - this.#heardAt >= this.#interruptedAfterMs;
  }

  /** Shows a job's state, unless a later one is shown already: what was read and what was told may overtake each other. */
  show(job) {
    if (this.#job !== null && job.revision <= this.#job.revision) return;
    const before = this.#job;
    this.#job = job;
    this.#heardAt = performance.now() - job.idle_s * 1000;

    const { article, name, facts, bar, count } = this.#parts;
    article.dataset.job = job.id;
    name.textContent = job.name;
    name.href = `${this.#base}${job.id}/`;
    facts.textContent = factsOf(job);
    const made = job.thumbnails.length;
    bar.max = job.steps;
    if (job.state === "waiting") bar.removeAttribute("value"); // the bar of a thing that has not begun
    else bar.value = made;
    count.textContent = `${made} of ${job.steps}`;
    this.#parts.again.action = `${this.#base}${job.id}/again/`;
    this.#showThumbnails(before);
    this.look();
  }

  /** Shows what depends on the time that has passed, too. */
  look() {
    const job = this.#job;
    const { article, state, steps, note, again } = this.#parts;
    const shown = this.isInterrupted && job.state === "working" ? "interrupted" : job.state;
    if (article.dataset.state !== shown) {
      article.dataset.state = shown;
      state.textContent = { waiting: "Waiting", working: "Working", done: "Done", failed: "Failed" }[shown] ?? "Interrupted";
    }
    steps.hidden = isOver(job);
    again.hidden = !this.isInterrupted;
    note.textContent = this.#note();
    note.hidden = note.textContent === "";
  }

  #note() {
    const job = this.#job;
    if (job.state === "failed") return job.error;
    if (!this.isInterrupted) return "";
    if (job.state === "waiting") return "No worker has taken this yet. Is one running? The job waits for it.";
    return `Process ${job.worker_pid} has made no progress for a while: it was probably stopped in the middle.`;
  }

  #showThumbnails(before) {
    const { thumbnails } = this.#parts;
    const { id, name, thumbnails: made } = this.#job;
    // Those shown already stay, so that pictures do not flicker; a job that began again starts with none.
    const kept = before !== null && before.thumbnails.length <= made.length ? before.thumbnails.length : 0;
    if (kept === 0) thumbnails.replaceChildren();
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

function factsOf({ width, height, bytes, worker_pid: worker }) {
  const facts = [`${width} × ${height}`, inBytes(bytes)];
  if (worker !== null) facts.push(`worker process ${worker}`);
  // Lines break between facts, not inside one.
  return facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ");
}

/** A number of bytes as people read it: 1.5 KB, 2.3 MB. */
export function inBytes(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  if (bytes < 1024 * 1024) return `${number.format(bytes / 1024)} KB`;
  return `${number.format(bytes / (1024 * 1024))} MB`;
}
