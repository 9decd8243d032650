// The page of a run: asks its server every other second what is new, and shows the view that the address names.
import { fill, h, section, unpressed } from "./dom.js";
import { get, go, state, told, where } from "./net.js";
import { failures, overview } from "./overview.js";
import { jobs } from "./jobs.js";
import { job } from "./job.js";
import { compare, runs } from "./runs.js";

const EVERY = 2000, SLOWEST = 10000;
const view = document.getElementById("view");
const views = { overview, jobs, failures, job, runs, compare };
const ofProject = new Set(["runs", "compare"]); // these need no run
let shown = null, timer = null, wait = EVERY, round = 0;

function soon() { clearTimeout(timer); timer = setTimeout(look, 0); }

async function look() {
  const mine = ++round;
  try {
    const found = await get("api/overview");
    if (mine !== round) return;
    heading(found);
    await show(found, () => mine === round);
    connection("");
    wait = EVERY;
  } catch (error) {
    if (mine !== round) return;
    if (!error.answered) connection("No answer from the page's server: trying again. Is ds dashboard still running?");
    else if (error.answered === 403) connection("This address is no longer valid: " + error.message + ".");
    else if (error.answered === 404) missing();
    else connection(told(error));
    wait = Math.min(wait * 1.5, SLOWEST);
  }
  if (mine === round && !document.hidden) { clearTimeout(timer); timer = setTimeout(look, wait); }
}

function missing() {
  shown = null;
  connection("");
  fill(view, section("Not found", h("p", {}, "This run has no such jobs, or no longer. ", h("a", { href: go("jobs"), "data-key": "all" }, "All jobs"))));
}

function connection(text) {
  const place = document.getElementById("link");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
  view.classList.toggle("old", Boolean(text));
}

function heading(found) {
  const { run } = where();
  state.alive = Boolean(found.alive) && !run;
  state.past = Boolean(run);
  document.getElementById("app").textContent = found.app;
  document.getElementById("run").textContent = found.run ? `run ${found.run} on ${found.engine}` : "no run yet";
  const mark = document.getElementById("state");
  mark.textContent = found.headline?.state ?? "";
  mark.dataset.tone = found.headline?.tone ?? "";
  mark.hidden = !found.state;
  document.title = found.jobs ? `${found.figures[0][1]} · ${found.app}` : found.app;
  const failed = found.jobs ? found.jobs.dead + found.jobs.failed : 0;
  document.getElementById("dead-count").textContent = failed ? `(${failed.toLocaleString("en")})` : "";
  const past = document.getElementById("past");
  past.hidden = !run;
  const said = document.getElementById("said");
  if (found.said && said.textContent !== found.said) said.textContent = found.said;
  for (const link of document.querySelectorAll("nav a")) link.setAttribute("href", go(link.dataset.view));
}

async function show(found, current) {
  const { name: asked, query, run } = where();
  const name = Object.hasOwn(views, asked) ? asked : "overview";
  const key = name + run + JSON.stringify(name === "jobs" ? {} : query);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (!found.run && !ofProject.has(name)) {
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

addEventListener("soon", soon);
addEventListener("hashchange", () => { soon(); view.focus({ preventScroll: true }); scrollTo(0, 0); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  event.preventDefault();
  const onJob = where().name === "job";
  if (!onJob && where().name !== "jobs") location.hash = go("jobs");
  setTimeout(() => document.getElementById(onJob ? "log-search" : "search")?.focus(), onJob ? 0 : 300);
});
look();
