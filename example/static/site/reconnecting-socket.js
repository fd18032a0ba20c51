/** A WebSocket that connects again, with growing pauses, whenever it is lost. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
// A server that accepts and then fails at once is not well yet.
const WELL_AFTER_MS = 5_000;

export class ReconnectingSocket {
  #url;
  #handlers;
  #socket = null;
  #failures = 0;
  #openedAt = Infinity;
  #timer = null;

  /**
   * @param {string} path of the WebSocket on this server
   * @param {{opened: () => void, frame: (frame: object) => void, lost: (pauseMs: number) => void}} handlers
   *   opened: connected, also after a loss; frame: a JSON object came; lost: the next try starts in pauseMs
   */
  constructor(path, handlers) {
    this.#url = new URL(path, location.href);
    this.#url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.#handlers = handlers;
    // The network came back, or somebody looks at the page again: do not sit out a pause.
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => this.#hurry());
  }

  connect() {
    this.#timer = null;
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      this.#openedAt = performance.now();
      this.#handlers.opened();
    });
    socket.addEventListener("message", (event) => this.#handlers.frame(JSON.parse(event.data)));
    socket.addEventListener("close", () => this.#retry());
  }

  /** Sends a JSON object. Returns false, and sends nothing, while there is no connection. */
  send(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  #retry() {
    if (performance.now() - this.#openedAt > WELL_AFTER_MS) this.#failures = 0;
    this.#openedAt = Infinity;
    const longest = Math.min(FIRST_PAUSE_MS * 2 ** this.#failures, LONGEST_PAUSE_MS);
    this.#failures += 1;
    // Random, so that the pages of a server that went down do not come back all at once.
    const pauseMs = longest * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.connect(), pauseMs);
    this.#handlers.lost(pauseMs);
  }

  #hurry() {
    if (this.#timer === null || document.hidden) return;
    clearTimeout(this.#timer);
    this.connect();
  }
}
