// The table of jobs: sorted, filtered and cut into pages by the server; rows are chosen to act on them.
import { command, fill, h, several, table } from "./dom.js";
import { address, get, go, state, where } from "./net.js";
import { drop, retry } from "./overview.js";

const STATES = ["waiting", "running", "succeeded", "failed", "dead", "skipped", "dropped"];
const CAUSES = ["exit", "signal", "timeout", "out-of-memory", "disk-full", "input-missing", "output-missing", "upload", "interrupted", "lease-lost", "worker-lost"];
const MOST_CHOSEN = 1000; // ids fit into one request; more jobs are named by their filter
const FIRST = new Set(["index", "time", "memory", "attempts"]); // the largest first, at the first click

const chosen = new Map(); // the chosen jobs by id, with their states
let latest = null; // the table on the page
addEventListener("done", () => { chosen.clear(); if (latest) latest.found = null; });

export const jobs = {
  build(query) {
    const parts = { typed: null };
    const change = () => {
      const values = Object.fromEntries(new FormData(parts.form));
      const { said, order } = where().query;
      history.replaceState(null, "", go("jobs", { ...values, order, said: values.cause === where().query.cause ? said : "" }));
      chosen.clear();
      dispatchEvent(new Event("soon"));
    };
    const choice = (name, label, options) => h("label", {}, label, h("select", { name, onchange: change }, h("option", { value: "" }, "any"), options));
    const type = () => { clearTimeout(parts.typed); parts.typed = setTimeout(change, 200); };
    parts.machines = h("datalist", { id: "machines" });
    parts.form = h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); change(); } },
      h("label", { class: "wide" }, "Search values, ids, machines; or Key=value", h("input", { type: "search", name: "q", id: "search", oninput: type, autocomplete: "off", "aria-keyshortcuts": "/" })),
      choice("state", "State", STATES.map((name) => h("option", { value: name }, name === "failed" ? "failed, to retry" : name))),
      choice("cause", "Cause", CAUSES.map((name) => h("option", { value: name }, name))),
      h("label", {}, "Machine", h("input", { name: "machine", list: "machines", oninput: type, autocomplete: "off" })), parts.machines);
    parts.count = h("p", { role: "status", class: "quiet" });
    parts.acts = h("div", { class: "acts", role: "toolbar", "aria-label": "Chosen jobs" });
    parts.rows = h("div");
    parts.pager = h("div", { class: "pager" });
    const place = h("section", { "aria-label": "Jobs" }, h("h2", {}, "Jobs"), parts.form, parts.count, parts.acts, parts.rows, parts.pager);
    for (const field of parts.form.elements) field.value = query[field.name] ?? "";
    chosen.clear();
    latest = parts;
    return { place, keep: parts };
  },
  async update({ keep: parts }, query, _found, ready) {
    const asked = JSON.stringify(query);
    const slow = parts.asked === asked ? 0 : setTimeout(() => { parts.count.textContent = "Looking…"; parts.rows.classList.add("old"); }, 300);
    const found = await get("api/jobs", query).finally(() => { clearTimeout(slow); parts.rows.classList.remove("old"); });
    if (!(await ready()) || (parts.found === found && parts.asked === asked)) return;
    Object.assign(parts, { found, asked });
    for (const field of parts.form.elements) {
      if (field !== document.activeElement && field.value !== (query[field.name] ?? "")) field.value = query[field.name] ?? "";
    }
    fill(parts.machines, found.machines.map((name) => h("option", { value: name })));
    const count = several(found.total) + (query.said ? ` that said: ${query.said}` : "");
    if (parts.count.textContent !== count) parts.count.textContent = count;
    fill(parts.rows, found.rows.length ? rows(found, parts, query) : h("p", {}, "No job is like that."));
    acts(parts, query);
    const turn = (page) => () => { history.replaceState(null, "", go("jobs", { ...where().query, page })); dispatchEvent(new Event("soon")); parts.form.scrollIntoView(); };
    fill(parts.pager, found.pages > 1 ? [
      h("button", { type: "button", "data-key": "back", disabled: found.page <= 1, onclick: turn(found.page - 1) }, "Back"),
      h("span", {}, `page ${found.page.toLocaleString("en")} of ${found.pages.toLocaleString("en")}`),
      h("button", { type: "button", "data-key": "on", disabled: found.page >= found.pages, onclick: turn(found.page + 1) }, "Next"),
    ] : null);
  },
};

function rows(found, parts, query) {
  const choose = (row) => (event) => {
    if (event.target.checked) chosen.set(row.id, row.state); else chosen.delete(row.id);
    acts(parts, query);
  };
  const every = (event) => {
    for (const row of found.rows) if (event.target.checked) chosen.set(row.id, row.state); else chosen.delete(row.id);
    for (const box of parts.rows.querySelectorAll("td input")) box.checked = event.target.checked;
    acts(parts, query);
  };
  const filter = (name, value) => go("jobs", { ...query, page: "", q: `${query.q ?? ""} ${name}=${/\s/.test(value) ? `"${value}"` : value}`.trim() });
  const keys = found.keys.map((name, at) => ({ name, order: "key:" + name, kind: "key", cell: (row) => {
    const value = row.keys[at];
    return value && !/["=\s]/.test(name) && !value.includes('"') ? h("a", { href: filter(name, value), class: "value", "data-key": `k${row.id}${name}`, title: `only jobs with ${name} = ${value}` }, value) : value;
  } }));
  return table("Jobs", [
    { name: "", kind: "box", head: h("input", { type: "checkbox", "aria-label": "choose all jobs of this page", "data-key": "every", onchange: every, checked: found.rows.every((row) => chosen.has(row.id)) }),
      cell: (row) => h("input", { type: "checkbox", "aria-label": `choose job ${row.index}`, "data-key": "c" + row.id, checked: chosen.has(row.id), onchange: choose(row) }) },
    { name: "index", order: "index", kind: "number", cell: (row) => row.index },
    { name: "id", order: "id", cell: (row) => h("a", { class: "id", href: go("job", { id: row.id }), "data-key": row.id }, row.id.slice(0, 8)) },
    { name: "state", order: "state", cell: (row) => h("span", { class: "mark " + row.state }, row.state === "failed" ? "failed, to retry" : row.state) },
    ...keys,
    { name: "attempts", order: "attempts", kind: "number", cell: (row) => row.attempts },
    { name: "cause", order: "cause", cell: (row) => (row.cause ?? "") + (row.exit_code ? ` ${row.exit_code}` : "") },
    { name: "time", order: "time", kind: "number", cell: (row) => row.time },
    { name: "memory", order: "memory", kind: "number", cell: (row) => row.memory },
    ...(found.machines.length > 1 ? [{ name: "machine", order: "machine", kind: "key", cell: (row) => row.machine }] : []),
  ], found.rows, { cards: true, sort: (name) => sorted(name, query), by: (name) => turned(name, query) });
}

// How a column is sorted now: the value of aria-sort.
function sorted(name, query) {
  const order = query.order || "index";
  return order === name ? "ascending" : order === "-" + name ? "descending" : "none";
}

function turned(name, query) {
  const now = sorted(name, query);
  const down = now === "none" ? FIRST.has(name) && name !== "index" : now === "ascending";
  return go("jobs", { ...query, page: "", order: (down ? "-" : "") + name });
}

// What can be done with the chosen jobs, or with all that the filter shows.
function acts(parts, query) {
  const { found } = parts;
  const { page: _page, ...asked } = query;
  const filtered = Object.entries(asked).some(([name, value]) => value && name !== "order");
  const ids = [...chosen.keys()].slice(0, MOST_CHOSEN);
  const dead = [...chosen].filter(([, name]) => name === "dead").map(([id]) => id).slice(0, MOST_CHOSEN);
  const save = (text, more, key) => h("a", { class: "button", href: address("jobs.csv", more), download: "jobs.csv", "data-key": key }, text);
  if (!ids.length) {
    const all = asked.state === "dead" && found.total;
    fill(parts.acts,
      found.total ? save(filtered ? `Save these ${several(found.total)} as CSV` : "Save all as CSV", asked, "csv") : null,
      all && !state.past ? [
        h("button", { type: "button", "data-key": "retryall", onclick: () => retry({ selected: asked }, found.total, "Retry all") }, `Retry all ${several(found.total)}`),
        h("button", { type: "button", "data-key": "dropall", onclick: () => drop({ selected: asked }, found.total, "Take out") }, "Take them out")] : null,
      h("span", { class: "quiet" }, "Choose rows to retry them, take them out, or save them."));
    return;
  }
  const few = ids.map((id) => id.slice(0, 12)).slice(0, 20).join(" ");
  fill(parts.acts,
    h("b", { role: "status" }, `${several(chosen.size)} chosen`),
    state.past ? null : [
      h("button", { type: "button", "data-key": "retry", disabled: !dead.length, title: dead.length ? null : "only dead jobs are put back", onclick: () => retry({ ids: dead }, dead.length, "Retry") }, "Retry"),
      h("button", { type: "button", "data-key": "drop", onclick: () => drop({ ids }, ids.length, "Take out") }, "Take out")],
    save("Save as CSV", { ids: ids.join(",") }, "csv"),
    ids.length <= 20 ? command(`${dead.length === ids.length ? "ds retry" : "ds drop"} ${few}`, "cmd") : null,
    h("button", { type: "button", "data-key": "none", onclick: () => { chosen.clear(); for (const box of parts.rows.querySelectorAll("input")) box.checked = false; acts(parts, query); } }, "Choose none"));
}
