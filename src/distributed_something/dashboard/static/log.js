// Shows what a job printed as a terminal would: a line that was overwritten in its last state, colours kept.
// Everything is text in elements of ours; escape sequences become classes, or nothing.
import { fill, h } from "./dom.js";

const MOST_LINES = 20000, MOST_LINE = 65536;
const TOKEN = /\x1b\[([0-9;?]*)([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\^_]|[\r\b]|[\x00-\x08\x0b-\x1f\x7f]/g; // eslint-disable-line no-control-regex

function styled(style, codes) {
  let now = { ...style };
  for (const code of (codes || "0").split(";").map(Number)) {
    if (code === 0) now = {};
    else if (code === 1) now.bold = true;
    else if (code === 2) now.faint = true;
    else if (code === 3) now.slanted = true;
    else if (code === 4) now.under = true;
    else if (code === 22) { delete now.bold; delete now.faint; }
    else if (code === 39) delete now.colour;
    else if (code === 38 || code === 48) break; // colours beyond the sixteen are left out
    else if (code >= 30 && code <= 37) now.colour = code - 30;
    else if (code >= 90 && code <= 97) now.colour = code - 90;
  }
  return now;
}

function classOf(style) {
  return Object.entries(style).map(([name, value]) => (name === "colour" ? "c" + value : name)).join(" ");
}

// The text and styles that a terminal would show of a line; and the style that the next line begins with.
function drawn(raw, begin) {
  let style = begin, column = 0, last = 0;
  const cells = [];
  const put = (text) => { for (const char of text) cells[column++] = [char, style]; };
  for (const found of raw.matchAll(TOKEN)) {
    put(raw.slice(last, found.index));
    last = found.index + found[0].length;
    if (found[0] === "\r") column = 0;
    else if (found[0] === "\b") column = Math.max(column - 1, 0);
    else if (found[2] === "m") style = styled(style, found[1]);
    else if (found[2] === "K") { if (found[1] === "2") cells.length = 0; else cells.length = Math.min(cells.length, column); }
    else if (found[2] === "G") column = Math.min(Math.max(Number(found[1] || 1) - 1, 0), 2000);
  }
  put(raw.slice(last));
  const parts = [];
  for (const [char, how] of Array.from(cells, (cell) => cell ?? [" ", {}])) {
    const kind = classOf(how);
    if (parts.length && parts.at(-1)[1] === kind) parts.at(-1)[0] += char; else parts.push([char, kind]);
  }
  return [parts.map(([text, kind]) => (kind ? h("span", { class: kind }, text) : text)), style];
}

export class Log {
  constructor() {
    this.text = h("pre", { class: "log", tabindex: "0", "aria-label": "What the job printed", onscroll: () => this.scrolled() });
    this.follow = h("input", { type: "checkbox", checked: true, onchange: () => { if (this.follow.checked) this.end(); } });
    this.search = h("input", { type: "search", id: "log-search", "aria-label": "Search in the log", placeholder: "Search", autocomplete: "off", "aria-keyshortcuts": "/",
      oninput: () => { this.at = -1; this.find(1); },
      onkeydown: (event) => { if (event.key === "Enter") { event.preventDefault(); this.find(event.shiftKey ? -1 : 1); } } });
    this.count = h("span", { role: "status", class: "quiet" });
    this.jump = h("button", { type: "button", hidden: true, onclick: () => this.toError() }, "Jump to the error");
    this.bar = h("div", { class: "logbar" }, this.search, this.count, this.jump, h("label", { class: "row" }, this.follow, "Follow"));
    this.clear();
  }

  clear() {
    fill(this.text);
    Object.assign(this, { style: {}, begun: {}, raw: "", line: null, at: -1, error: "" });
    this.jump.hidden = true;
    this.count.textContent = "";
  }

  append(text) {
    const pieces = text.split("\n");
    for (const [number, piece] of pieces.entries()) {
      this.raw = (this.raw + piece).slice(-MOST_LINE);
      if (this.raw || number < pieces.length - 1) this.draw();
      if (number === pieces.length - 1) break;
      this.line.append("\n");
      this.begun = this.style;
      this.raw = "";
      this.line = null;
    }
    while (this.text.childElementCount > MOST_LINES) this.text.firstElementChild.remove();
    if (this.follow.checked) this.end();
    if (this.search.value) this.find(0);
  }

  draw() {
    if (!this.line) this.text.append(this.line = h("span", { class: "line" }));
    const [parts, style] = drawn(this.raw, this.begun);
    this.style = style;
    this.line.replaceChildren(...parts);
  }

  end() { this.text.scrollTop = this.text.scrollHeight; }

  scrolled() {
    const below = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight;
    if (below > 60) this.follow.checked = false; else if (below < 4) this.follow.checked = true;
  }

  // Go `step` hits on; 0: mark the hits only.
  find(step) {
    const word = this.search.value.toLowerCase();
    const hits = [];
    for (const line of this.text.children) {
      const hit = Boolean(word) && line.textContent.toLowerCase().includes(word);
      line.classList.toggle("hit", hit);
      line.classList.remove("at");
      if (hit) hits.push(line);
    }
    if (!hits.length) { this.count.textContent = word ? "not found" : ""; this.at = -1; return; }
    this.at = (this.at + step + hits.length) % hits.length;
    hits[this.at].classList.add("at");
    this.count.textContent = `${this.at + 1} of ${hits.length}`;
    if (step) this.show(hits[this.at]);
  }

  tell(error) {
    this.error = error.trim().slice(0, 120);
    this.jump.hidden = !this.error;
  }

  toError() {
    const line = [...this.text.children].findLast((each) => each.textContent.includes(this.error));
    for (const each of this.text.querySelectorAll(".error")) each.classList.remove("error");
    if (!line) { this.count.textContent = "the line is in a part that is not shown"; return; }
    line.classList.add("error");
    this.show(line);
    this.text.focus({ preventScroll: true });
  }

  show(line) {
    this.follow.checked = false;
    this.text.scrollTop = line.offsetTop - this.text.offsetTop - this.text.clientHeight / 2;
  }
}
