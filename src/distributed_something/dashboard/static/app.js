// The page of a run: asks its server every other second what is new, and shows the view that the address names.
import { ask, facts, fill, h, note, plot, section, table, unpressed } from "./dom.js";

const EVERY = 2000, SLOWEST = 10000;
const token = location.pathname.split("/")[1];
const view = document.getElementById("view");
const tags = new Map();
let alive = false, shown = null, timer = null, wait = EVERY, round = 0, last = null;

// asking

async function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  const url = path + (given.length ? "?" + new URLSearchParams(given) : "");
  const known = tags.get(url);
  const answer = await fetch(url, { headers: known ? { "If-None-Match": known.tag } : {}, cache: "no-store" });
  if (answer.status === 304) return known.value;
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error.what), { answered: answer.status, fix: value.error.fix });
  if (tags.size > 40) tags.clear();
  tags.set(url, { tag: answer.headers.get("ETag"), value });
  return value;
}

async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Token": token };
  try {
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    const value = await answer.json();
    note(answer.ok ? value.said : value.error.what + (value.error.fix ? ". To do: " + value.error.fix : ""));
  } catch {
    note("The page's server does not answer; nothing was done.");
  }
  soon();
}

// the loop

function where() {
  const [name, text = ""] = location.hash.slice(1).split("?");
  const found = Object.hasOwn(views, name) ? name : "overview";
  return { name: found, query: Object.fromEntries(new URLSearchParams(text)) };
}

function go(name, query) {
  const given = Object.entries(query).filter(([, value]) => value);
  return "#" + name + (given.length ? "?" + new URLSearchParams(given) : "");
}

function soon() { clearTimeout(timer); timer = setTimeout(look, 0); }

async function look() {
  const mine = ++round;
  try {
    const found = await get("api/overview");
    if (mine !== round) return;
    heading(found);
    alive = Boolean(found.alive);
    await show(found, () => mine === round);
    connection("");
    wait = EVERY;
  } catch (error) {
    if (mine !== round) return;
    if (!error.answered) connection("No answer from the page's server: trying again. Is ds dashboard still running?");
    else if (error.answered === 403) connection("This address is no longer valid: " + error.message + ".");
    else if (error.answered === 404) missing();
    else connection(error.message + (error.fix ? ". To do: " + error.fix : ""));
    wait = Math.min(wait * 1.5, SLOWEST);
  }
  if (mine === round && !document.hidden) { clearTimeout(timer); timer = setTimeout(look, wait); }
}

function missing() {
  shown = null;
  connection("");
  fill(view, section("Not found", h("p", {}, "This run has no such jobs, or no longer. ", h("a", { href: "#jobs", "data-key": "all" }, "All jobs"))));
}

function connection(text) {
  const place = document.getElementById("link");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
  view.classList.toggle("old", Boolean(text));
}

function heading(found) {
  document.getElementById("app").textContent = found.app;
  document.getElementById("run").textContent = found.run ? `run ${found.run} on ${found.engine}` : "no run yet";
  const state = document.getElementById("state");
  state.textContent = found.headline?.state ?? "";
  state.dataset.tone = found.headline?.tone ?? "";
  state.hidden = !found.state;
  document.title = found.jobs ? `${found.figures[0][1]} · ${found.app}` : found.app;
  const failed = found.jobs ? found.jobs.dead + found.jobs.failed : 0;
  document.getElementById("dead-count").textContent = failed ? `(${failed.toLocaleString("en")})` : "";
  const said = document.getElementById("said");
  if (found.said && said.textContent !== found.said) said.textContent = found.said;
}

async function show(found, current) {
  const { name, query } = where();
  const key = name + JSON.stringify(name === "jobs" ? {} : query);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (!found.run) {
    shown = null;
    fill(view, section("No run yet", h("p", {}, found.error ? found.error.what : "Start one: ", h("code", {}, found.error?.fix || "ds run files/exampleJob.json"))));
    return;
  }
  if (found.error) throw Object.assign(new Error(found.error.what), { answered: 409, fix: found.error.fix });
  const parts = shown?.key === key ? shown.parts : views[name].build(query);
  await views[name].update(parts, query, found, async () => {
    await unpressed();
    if (!current()) return false;
    if (shown?.key !== key) { shown = { key, parts }; fill(view, ...Object.values(parts).filter((part) => part instanceof Node)); }
    return true;
  });
}

// the views: `build` makes their places, `update` fills them

const overview = {
  build: () => ({ progress: h("section", { "aria-label": "Progress" }), grid: h("div", { class: "grid2" }), failed: h("div") }),
  async update(parts, _query, found, ready) {
    const failures = found.jobs.dead + found.jobs.failed ? await get("api/failures") : { groups: [] };
    if (!(await ready()) || (last === found && parts.groups === failures)) return;
    last = found;
    parts.groups = failures;
    fill(parts.progress,
      h("p", { class: "headline " + found.headline.tone }, found.headline.sentence),
      h("div", { class: "figures" }, found.figures.map(([name, value]) => h("div", {}, h("b", {}, value), h("span", {}, name)))),
      plot(found.parts),
      found.why_idle ? h("p", { class: "hint" }, h("b", {}, "Why nothing moves: "), found.why_idle) : null,
      found.report ? h("p", {}, h("a", { href: "report", target: "_blank", rel: "noopener" }, "Report of the run"), ": where the time went, and better settings for next time") : null,
      found.state === "finished" || !found.alive ? null : h("div", { class: "buttons" },
        h("button", { "data-key": "drain", disabled: found.draining, onclick: drain }, found.draining ? "Draining" : "Drain"),
        h("button", { "data-key": "stop", class: "danger", onclick: stop }, "Stop now")));
    fill(parts.grid,
      section("Throughput", found.throughput ? plot(found.throughput) : h("p", { class: "quiet" }, "No job has ended yet.")),
      h("div", { class: "machines" }, section("Machines", machines(found.fleet))));
    fill(parts.failed, failures.groups.length ? section("Failures", groups({ ...failures, groups: failures.groups.slice(0, 5) }),
      failures.groups.length > 5 ? h("p", {}, h("a", { href: "#failures" }, "All kinds of failures")) : null) : null);
  },
};

function machines(fleet) {
  if (!fleet.rows.length) return h("p", { class: "quiet" }, "No machine has run a job yet.");
  const running = (row) => (row.running.length ? jobsOf(row) : row.here ? h("span", { class: "quiet" }, "nothing") : null);
  const jobsOf = (row) => h("div", { class: "running-jobs" },
    row.running.map((job) => h("a", { href: go("job", { id: job.id }), "data-key": "m" + job.id }, "job " + job.index)),
    row.more ? `and ${row.more} more` : null);
  return [
    table("Machines", [
      { name: "machine", kind: "whole", cell: (row) => [row.name || "not known", row.kind ? h("div", { class: "quiet" }, row.kind) : null] },
      { name: "done", kind: "number", cell: (row) => row.done },
      { name: "state", cell: (row) => h("span", { class: row.lost ? "bad" : "quiet" }, row.state) },
      { name: "runs now", cell: running },
    ], fleet.rows, { cards: true }),
    fleet.more ? h("p", { class: "quiet" }, `and ${fleet.more} more machines`) : null,
  ];
}

async function drain() {
  if (await ask("Drain: no new jobs start, and the running ones finish. What is left stays in the queue.", "Drain")) post("api/stop", { now: false });
}

async function stop() {
  if (await ask("Stop now: running jobs are ended and go back to the queue. They will begin again from the start.", "Stop now")) post("api/stop", { now: true });
}

const several = (count) => (count === 1 ? "1 job" : `${count.toLocaleString("en")} jobs`);

// Put dead jobs back. Where no worker runs, workers are started too, and what they cost is named first.
async function retry(which, count, yes) {
  const what = `Put ${several(count)} back into the queue, with all attempts?`;
  if (alive) {
    if (await ask(what, yes)) post("api/retry", which);
    return;
  }
  let cost;
  try {
    cost = (await get("api/offer", { jobs: count })).cost;
  } catch (error) {
    note(error.message + (error.fix ? ". To do: " + error.fix : ""));
    return;
  }
  const workers = cost.length ? "No machine runs: machines are asked for, as the config says." : "No worker runs: workers are started.";
  if (await ask([what, workers, ...cost], yes)) post("api/retry", { ...which, start: true });
}

// Take jobs out, so that the run can end without dead jobs. What they wrote stays.
async function drop(which, count, yes) {
  const what = `Take ${several(count)} out of the run? They are not tried again in this run, and count as dropped.`;
  if (await ask(what, yes)) post("api/drop", which);
}

function groups(found) {
  const which = (group) => ({ cause: group.cause, example: group.example });
  const act = (group) => (group.dead ? h("div", { class: "buttons" },
    h("button", { "data-key": "retry" + group.cause + group.example, onclick: () => retry(which(group), group.dead, "Retry these") }, "Retry these"),
    h("button", { "data-key": "drop" + group.cause + group.example, onclick: () => drop(which(group), group.dead, "Take out") }, "Take out"))
    : h("span", { class: "quiet" }, "tried again by themselves"));
  return [
    table("Failures by cause and by what the jobs said", [
      { name: "jobs", kind: "number", cell: (group) => h("a", { href: go("jobs", { cause: group.cause, said: group.example }), "data-key": "g" + group.cause + group.example }, group.jobs) },
      { name: "dead", kind: "number", cell: (group) => group.dead.toLocaleString("en") },
      { name: "cause", cell: (group) => group.cause },
      { name: "", cell: act },
      { name: "what they said", kind: "said", cell: (group) => h("code", {}, group.example) },
      { name: "for example", cell: (group) => h("a", { class: "id", href: go("job", { id: group.ids[0] }) }, group.ids[0].slice(0, 8)) },
    ], found.groups, { cards: true }),
    found.more ? h("p", { class: "quiet" }, `and ${found.more} more kinds: ds failures`) : null,
  ];
}

const failures = {
  build: () => ({ place: h("div") }),
  async update(parts, _query, _found, ready) {
    const found = await get("api/failures");
    if (!(await ready()) || parts.found === found) return;
    parts.found = found;
    fill(parts.place, section("Failures", found.groups.length ? groups(found) : h("p", {}, "No job has failed.")));
  },
};

const STATES = ["waiting", "running", "succeeded", "failed", "dead", "skipped", "dropped"];
const CAUSES = ["exit", "signal", "timeout", "out-of-memory", "disk-full", "input-missing", "output-missing", "upload", "interrupted", "lease-lost", "worker-lost"];
const ORDERS = { longest: "longest first", memory: "most memory first", attempts: "most attempts first", latest: "latest first" };

const jobs = {
  build(query) {
    const parts = { typed: null };
    const change = () => {
      const values = Object.fromEntries(new FormData(parts.form));
      const { said } = where().query;
      history.replaceState(null, "", go("jobs", { ...values, said: values.cause === where().query.cause ? said : "" }));
      soon();
    };
    const choice = (name, label, options) => h("label", {}, label, h("select", { name, onchange: change }, h("option", { value: "" }, "any"), options));
    const type = () => { clearTimeout(parts.typed); parts.typed = setTimeout(change, 200); };
    parts.form = h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); change(); } },
      h("label", { class: "wide" }, "Search values, ids, machines", h("input", { type: "search", name: "q", id: "search", oninput: type, autocomplete: "off", "aria-keyshortcuts": "/" })),
      choice("state", "State", STATES.map((name) => h("option", { value: name }, name === "failed" ? "failed, to retry" : name))),
      choice("cause", "Cause", CAUSES.map((name) => h("option", { value: name }, name))),
      h("label", {}, "Order", h("select", { name: "order", onchange: change }, h("option", { value: "" }, "as submitted"), Object.entries(ORDERS).map(([value, text]) => h("option", { value }, text)))));
    parts.count = h("p", { role: "status", class: "quiet" });
    parts.rows = h("div");
    parts.pager = h("div", { class: "pager" });
    parts.place = h("section", { "aria-label": "Jobs" }, h("h2", {}, "Jobs"), parts.form, parts.count, parts.rows, parts.pager);
    for (const field of parts.form.elements) field.value = query[field.name] ?? "";
    return { place: parts.place, keep: parts };
  },
  async update({ keep: parts }, query, _found, ready) {
    const found = await get("api/jobs", query);
    if (!(await ready()) || parts.found === found) return;
    parts.found = found;
    for (const field of parts.form.elements) {
      if (field !== document.activeElement && field.value !== (query[field.name] ?? "")) field.value = query[field.name] ?? "";
    }
    const count = `${found.total.toLocaleString("en")} ${found.total === 1 ? "job" : "jobs"}` + (query.said ? ` that said: ${query.said}` : "");
    if (parts.count.textContent !== count) parts.count.textContent = count;
    fill(parts.rows, found.rows.length ? table("Jobs", [
      { name: "index", kind: "number", cell: (row) => row.index },
      { name: "id", cell: (row) => h("a", { class: "id", href: go("job", { id: row.id }), "data-key": row.id }, row.id.slice(0, 8)) },
      { name: "state", cell: (row) => h("span", { class: "mark " + row.state }, row.state === "failed" ? "failed, to retry" : row.state) },
      { name: "attempts", kind: "number", cell: (row) => row.attempts },
      { name: "cause", cell: (row) => (row.cause ?? "") + (row.exit_code ? ` ${row.exit_code}` : "") },
      { name: "time", kind: "number", cell: (row) => row.time },
      { name: "memory", kind: "number", cell: (row) => row.memory },
      { name: "values", kind: "values", cell: (row) => row.values },
    ], found.rows, { cards: true }) : h("p", {}, "No job is like that."));
    const turn = (page) => () => { history.replaceState(null, "", go("jobs", { ...where().query, page })); soon(); view.scrollIntoView(); };
    fill(parts.pager, found.pages > 1 ? [
      h("button", { type: "button", "data-key": "back", disabled: found.page <= 1, onclick: turn(found.page - 1) }, "Back"),
      h("span", {}, `page ${found.page.toLocaleString("en")} of ${found.pages.toLocaleString("en")}`),
      h("button", { type: "button", "data-key": "on", disabled: found.page >= found.pages, onclick: turn(found.page + 1) }, "Next"),
    ] : null);
  },
};

const job = {
  build: () => ({ head: h("div"), log: h("section", { "aria-label": "Log" }), files: h("div", { class: "grid2" }), keep: { next: 0 } }),
  async update(parts, query, _found, ready) {
    const found = await get("api/job", { id: query.id });
    if (!(await ready())) return;
    const state = parts.keep;
    if (state.found !== found) {
      state.found = found;
      fill(parts.head, jobHead(found));
      fill(parts.files, files("Inputs", found.inputs, query.id), files("Outputs", found.outputs, query.id, found.output_at));
    }
    const running = found.attempts.at(-1);
    const place = query.log ?? running?.log ?? found.job.log;
    const begin = place?.split("+")[0];
    const whose = found.attempts.find((each) => each.log?.split("+")[0] === begin)?.attempt;
    await log(parts, query.id, place, whose ? `Log of attempt ${whose}` : "Log", ready);
  },
};

function jobHead(found) {
  const line = found.job;
  const keys = { ...line.job };
  const group = keys.group ?? {};
  delete keys.group;
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const values = [...Object.entries(group), ...Object.entries(keys)].map(([name, value]) => [name, text(value)]);
  return [
    section(`Job ${line.index}`, facts([
      ["state", h("span", { class: "mark " + (found.failed ? "failed" : line.state) }, found.failed ? "failed, to retry" : line.state)],
      ["id", h("span", { class: "id" }, line.id)],
      ...values,
    ]), line.state === "dead" ? h("div", { class: "buttons" }, h("button", { "data-key": "again", onclick: () => retry({ ids: [line.id] }, 1, "Retry this job") }, "Retry this job"),
      h("button", { "data-key": "out", onclick: () => drop({ ids: [line.id] }, 1, "Take out") }, "Take out")) : null),
    section("Attempts", found.attempts.length ? table("Attempts", [
      { name: "attempt", kind: "number", cell: (each) => each.attempt ?? "" },
      { name: "ended", cell: (each) => h("span", { class: "mark " + each.name }, each.name) },
      { name: "cause", cell: (each) => [each.cause ?? "", each.detail ? h("div", { class: "quiet" }, each.detail) : null] },
      { name: "figures", kind: "said", cell: (each) => each.figures.map(([name, value]) => `${name} ${value}`).join(" · ") },
      { name: "log", cell: (each) => (each.log ? h("a", { href: go("job", { id: line.id, log: each.log }), "aria-label": `log of attempt ${each.attempt}` }, "log") : "") },
    ], found.attempts, { cards: true }) : h("p", { class: "quiet" }, "It waits for its first attempt.")),
  ];
}

async function log(parts, id, place, title, ready) {
  const state = parts.keep;
  if (!place) { fill(parts.log, h("h2", {}, title), h("p", { class: "quiet" }, "It has printed nothing.")); state.text = null; return; }
  if (!state.text) {
    state.text = h("pre", { class: "log", tabindex: "0", "aria-label": "What the job printed" });
    state.title = h("h2");
    fill(parts.log, state.title, state.text);
  }
  if (state.title.textContent !== title) state.title.textContent = title;
  const begin = place.split("+")[0];
  if (state.begin !== begin) { state.begin = begin; state.next = 0; state.text.textContent = ""; state.ended = false; }
  if (state.ended) return;
  const found = await get("api/log", { id, place, from: state.next });
  if (!(await ready()) || state.begin !== begin) return;
  const below = state.text.scrollHeight - state.text.scrollTop - state.text.clientHeight < 30;
  if (found.skipped) state.text.append(`(the first ${found.skipped.toLocaleString("en")} bytes are left out: ds logs ${id})\n`);
  if (found.text) state.text.append(found.text);
  if (below) state.text.scrollTop = state.text.scrollHeight;
  state.next = found.next;
  state.ended = found.ended;
}

function files(title, found, id, at) {
  const address = (file) => "file?" + new URLSearchParams({ id, key: file.key });
  const name = (file) => file.key.split("/").at(-1);
  const link = (file) => [h("a", { href: address(file), target: "_blank", rel: "noopener" }, name(file)), " ", h("span", { class: "quiet" }, file.size)];
  const pictures = found.filter((file) => file.kind === "picture");
  const others = found.filter((file) => file.kind !== "picture");
  return section(title,
    pictures.length ? h("ul", { class: "pictures" }, pictures.map((file) => h("li", {}, h("img", { src: address(file), alt: name(file), loading: "lazy" }), link(file)))) : null,
    others.length ? h("ul", { class: "files" }, others.map((file) => h("li", {}, link(file)))) : null,
    found.length ? null : h("p", { class: "quiet" }, "None."),
    at ? h("p", { class: "quiet" }, at) : null);
}

const views = { overview, jobs, failures, job };

addEventListener("hashchange", () => { last = null; soon(); view.focus({ preventScroll: true }); scrollTo(0, 0); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  event.preventDefault();
  if (where().name !== "jobs") location.hash = "#jobs";
  setTimeout(() => document.getElementById("search")?.focus(), 300);
});
look();
