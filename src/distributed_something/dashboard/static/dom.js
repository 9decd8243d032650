// Building the page. Text is always text: nothing that comes from a job is ever read as HTML.

export function h(name, facts = {}, ...inside) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(facts)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...inside.flat(Infinity).filter((part) => part !== null && part !== undefined && part !== false));
  return node;
}

// A plot of our own server's, which holds nothing but numbers and escaped words.
export function plot(text) {
  const parsed = new DOMParser().parseFromString(text, "text/html");
  return [...parsed.body.childNodes].map((node) => document.adoptNode(node));
}

// While a pointer is pressed nothing is replaced: a click whose two halves meet different nodes is none.
const LONGEST_PRESS = 5000;
let release = () => {}, released = Promise.resolve();
addEventListener("pointerdown", () => {
  release();
  released = new Promise((done) => { release = done; setTimeout(done, LONGEST_PRESS); });
}, true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => release()), true);

export function unpressed() {
  return released;
}

// Replace what is in a place; the focus stays on what has the same data-key.
export function fill(place, ...nodes) {
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  place.replaceChildren(...nodes.flat(Infinity).filter(Boolean));
  if (key !== undefined) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// A table; with `cards`, each row is a card where the page is narrow. The roles say that it stays a table then.
// A column with an `order` is sorted by a link in its head: `sort` says how it is now, `by` where the link leads.
export function table(caption, columns, rows, { cards = false, sort = null, by = null } = {}) {
  const kind = (column) => (column.kind ? { class: column.kind } : {});
  const head = (column) => h("th", { scope: "col", role: "columnheader", ...kind(column), "aria-sort": column.order && sort ? sort(column.order) : null },
    column.head ?? (column.order && by ? h("a", { href: by(column.order), class: "sort", "data-key": "sort" + column.order }, column.name) : column.name || h("span", { class: "unseen" }, column.kind === "box" ? "choose" : "actions")));
  const cell = (column, row) => h("td", { role: "cell", "data-name": column.name, ...kind(column) }, column.cell(row));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { role: "table", class: cards ? "cards" : null },
      h("caption", { class: "unseen" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map(head))),
      h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { role: "row" }, columns.map((column) => cell(column, row)))))));
}

export const several = (count) => (count === 1 ? "1 job" : `${count.toLocaleString("en")} jobs`);

// A size in powers of 1000, as the server writes it.
export function bytes(size) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000) return unit === "B" ? `${size} B` : `${size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} TB`;
}

// A command with a button that copies it.
export function command(text, key) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      note("Copied: " + text);
    } catch {
      getSelection().selectAllChildren(code);
      note("The browser does not let the page copy: press Ctrl-C.");
    }
  };
  const code = h("code", {}, text);
  return h("span", { class: "command" }, code, h("button", { type: "button", class: "copy", "data-key": "copy" + key, "aria-label": "Copy " + text, title: "Copy", onclick: copy }, "Copy"));
}

export function section(title, ...inside) {
  return h("section", { "aria-label": title }, h("h2", {}, title), inside);
}

export function facts(pairs) {
  return h("dl", {}, pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

// Ask before something is done; true if the answer is yes. `what` is a text, or several paragraphs.
export function ask(what, yes) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-what").replaceChildren(...[what].flat().map((text) => h("p", {}, text)));
  document.getElementById("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

let noted;
export function note(text) {
  const place = document.getElementById("note");
  place.textContent = text;
  clearTimeout(noted);
  noted = setTimeout(() => { place.textContent = ""; }, 8000);
}
