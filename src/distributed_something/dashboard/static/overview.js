// The first screen: what the run does, what is wrong, what to do next; timeline, figures, failures, pictures.
import { ask, command, facts, fill, h, note, plot, section, several, table } from "./dom.js";
import { address, get, go, post, state, told } from "./net.js";

export const overview = {
  build: () => ({
    story: h("section", { "aria-label": "Progress" }), failed: h("div"), time: h("div"),
    grid: h("div", { class: "grid2" }), pictures: h("div"), keep: {},
  }),
  async update(parts, _query, found, ready) {
    const [groups, drawn] = await Promise.all([
      found.jobs.dead + found.jobs.failed ? get("api/failures") : { groups: [] }, get("api/timeline")]);
    if (!(await ready())) return;
    const { keep } = parts;
    if (keep.found !== found) {
      fill(parts.story, story(found));
      fill(parts.grid,
        section("Throughput", found.throughput ? plot(found.throughput) : h("p", { class: "quiet" }, "No job has ended yet.")),
        h("div", { class: "machines" }, section("Machines", machines(found.fleet))));
    }
    if (keep.groups !== groups) {
      fill(parts.failed, groups.groups.length ? section("Failures", failuresTable({ ...groups, groups: groups.groups.slice(0, 5) }),
        groups.groups.length > 5 ? h("p", {}, h("a", { href: go("failures") }, "All kinds of failures")) : null) : null);
    }
    if (keep.drawn !== drawn) {
      fill(parts.time, drawn.timeline ? section("Timeline", timeline(drawn.timeline)) : null);
      if (JSON.stringify(keep.drawn?.pictures) !== JSON.stringify(drawn.pictures)) {
        fill(parts.pictures, drawn.pictures?.length ? section("Latest pictures", gallery(drawn.pictures)) : null);
      }
    }
    Object.assign(keep, { found, groups, drawn });
  },
};

function story(found) {
  const { now, wrong, next } = found.story;
  return [
    h("h2", { class: "headline " + found.headline.tone }, found.headline.sentence),
    plot(found.parts),
    h("div", { class: "story" },
      h("div", {}, h("h3", {}, "Now"), h("p", {}, now)),
      wrong.length ? h("div", { class: "wrong" }, h("h3", {}, "Wrong"), h("ul", {}, wrong.map((text) => h("li", {}, text)))) : null,
      next.length || found.report ? h("div", {}, h("h3", {}, "Next"), h("ul", {},
        next.map((each, at) => h("li", {}, each.text, each.command ? [" ", command(each.command, "next" + at)] : null)),
        found.report ? h("li", {}, h("a", { href: address("report"), target: "_blank", rel: "noopener", "data-key": "report" }, "Report of the run"), ": where the time went, and better settings for next time") : null)) : null),
    h("div", { class: "figures" }, found.figures.map(([name, value]) => h("div", { class: value.length > 14 ? "wide" : null }, h("b", {}, value), h("span", {}, name)))),
    !state.alive ? null : found.state === "finished" ? h("div", { class: "buttons" }, h("button", { "data-key": "end", onclick: end }, "End the workers")) : h("div", { class: "buttons" },
      h("button", { "data-key": "drain", disabled: found.draining, onclick: drain }, found.draining ? "Draining" : "Drain"),
      h("button", { "data-key": "stop", class: "danger", onclick: stop }, "Stop now")),
  ];
}

async function drain() {
  if (await ask("Drain: no new jobs start, and the running ones finish. What is left stays in the queue.", "Drain")) post("api/stop", { now: false });
}

async function end() {
  if (await ask("All jobs have ended. The workers are ended too; what is dead can still be put back.", "End the workers")) post("api/stop", { now: true });
}

async function stop() {
  if (await ask("Stop now: running jobs are ended and go back to the queue. They will begin again from the start.", "Stop now")) post("api/stop", { now: true });
}

const KINDS = [["succeeded", "succeeded"], ["running", "running"], ["failed", "failed"], ["dead", "dead"], ["interrupted", "interrupted"], ["skipped", "skipped"]];

function timeline(found) {
  const ns = "http://www.w3.org/2000/svg";
  const rect = (kind, at, wide, title) => {
    const node = document.createElementNS(ns, "rect");
    for (const [name, value] of Object.entries({ class: kind, x: at, y: kind === "here" || kind === "gap" ? 0 : 1, width: Math.max(wide, 1.2), height: kind === "here" || kind === "gap" ? 12 : 10 })) node.setAttribute(name, value);
    if (title) node.append(Object.assign(document.createElementNS(ns, "title"), { textContent: title }));
    return node;
  };
  const lane = (each) => {
    const bars = document.createElementNS(ns, "svg");
    for (const [name, value] of Object.entries({ viewBox: "0 0 1000 12", preserveAspectRatio: "none", "aria-hidden": "true" })) bars.setAttribute(name, value);
    if (each.here) bars.append(rect("here", each.here[0], each.here[1], "the machine was there"));
    for (const gap of found.gaps) bars.append(rect("gap", gap.at, gap.wide, gap.text));
    for (const [at, wide, kind, title, id] of each.bars) {
      const bar = rect(kind, at, wide, title);
      bar.dataset.id = id;
      bars.append(bar);
    }
    if (each.lost) bars.append(rect("lost", each.here[0] + each.here[1] - 4, 4, "lost: " + each.lost));
    return [h("span", { class: "lane" }, each.slot > 1 ? "" : each.name), bars];
  };
  const used = new Set(found.lanes.flatMap((each) => each.bars.map((bar) => bar[2])));
  const key = (kind) => {
    const mark = document.createElementNS(ns, "svg");
    mark.setAttribute("class", "key");
    mark.setAttribute("aria-hidden", "true");
    mark.append(rect(kind, 0, 12));
    mark.setAttribute("viewBox", "0 0 12 12");
    return mark;
  };
  const chart = h("div", { class: "timeline", role: "img", "aria-label": found.title, onclick: (event) => { if (event.target.dataset?.id) location.hash = go("job", { id: event.target.dataset.id }); } },
    found.lanes.map(lane), h("span", { class: "lane" }), h("div", { class: "axis" }, found.axis.map((text) => h("span", {}, text))));
  return [chart,
    h("ul", { class: "legend" }, KINDS.filter(([kind]) => used.has(kind)).map(([kind, text]) => h("li", {}, key(kind), text)),
      found.lanes.some((each) => each.here) ? h("li", {}, key("here"), "machine there") : null,
      found.lanes.some((each) => each.lost) ? h("li", {}, key("lost"), "machine lost") : null),
    found.gaps.length ? h("ul", { class: "gaps" }, found.gaps.map((gap) => h("li", {}, gap.text))) : null,
    found.more || found.note ? h("p", { class: "quiet" }, [found.more ? `${found.more.toLocaleString("en")} more slots are not shown` : "", found.note].filter(Boolean).join("; ")) : null];
}

function gallery(found) {
  return h("ul", { class: "pictures small" }, found.map((each) => {
    const picture = h("img", { src: address("thumbnail", { id: each.id, key: each.key }), alt: each.label, loading: "lazy" });
    picture.addEventListener("error", () => picture.closest("li")?.classList.add("none"));
    return h("li", {}, h("a", { href: go("job", { id: each.id }), "data-key": "p" + each.id + each.key }, picture, h("span", {}, each.label)));
  }));
}

function machines(fleet) {
  const running = (row) => (row.running.length ? jobsOf(row) : row.here ? h("span", { class: "quiet" }, "nothing") : null);
  const jobsOf = (row) => h("div", { class: "running-jobs" },
    row.running.map((job) => h("a", { href: go("job", { id: job.id }), "data-key": "m" + job.id }, "job " + job.index)),
    row.more ? `and ${row.more} more` : null);
  return [
    !fleet.rows.length ? h("p", { class: "quiet" }, "No machine has run a job yet.") : table("Machines", [
      { name: "machine", kind: "whole", cell: (row) => [h("a", { href: go("jobs", { machine: row.name }), "data-key": "n" + row.name }, row.name || "not known"), row.kind ? h("div", { class: "quiet" }, row.kind) : null] },
      { name: "done", kind: "number", cell: (row) => row.done },
      { name: "state", cell: (row) => h("span", { class: row.lost ? "bad" : "quiet" }, row.state) },
      { name: "runs now", cell: running },
    ], fleet.rows, { cards: true }),
    fleet.more ? h("p", { class: "quiet" }, `and ${fleet.more} more machines`) : null,
    fleet.details.length ? h("div", { class: "details" }, facts(fleet.details)) : null,
  ];
}

// Put dead jobs back. Where no worker runs, workers are started too, and what they cost is named first.
export async function retry(which, count, yes) {
  const what = `Put ${several(count)} back into the queue, with all attempts?`;
  if (state.alive) {
    if (await ask(what, yes)) post("api/retry", which);
    return;
  }
  let cost;
  try {
    cost = (await get("api/offer", { jobs: count })).cost;
  } catch (error) {
    note(told(error));
    return;
  }
  const workers = cost.length ? "No machine runs: machines are asked for, as the config says." : "No worker runs: workers are started.";
  if (await ask([what, workers, ...cost], yes)) post("api/retry", { ...which, start: true });
}

// Take jobs out, so that the run can end without dead jobs. What they wrote stays.
export async function drop(which, count, yes) {
  const what = `Take ${several(count)} out of the run? They are not tried again in this run, and count as dropped.`;
  if (await ask(what, yes)) post("api/drop", which);
}

function failuresTable(found) {
  const which = (group) => ({ cause: group.cause, example: group.example });
  const mark = (group) => group.cause + group.example;
  const act = (group) => (state.past ? null : group.dead ? h("div", { class: "buttons" },
    h("button", { "data-key": "retry" + mark(group), onclick: () => retry(which(group), group.dead, "Retry these") }, "Retry these"),
    h("button", { "data-key": "drop" + mark(group), onclick: () => drop(which(group), group.dead, "Take out") }, "Take out"))
    : h("span", { class: "quiet" }, "tried again by themselves"));
  return [
    table("Failures by cause and by what the jobs said", [
      { name: "jobs", kind: "number", cell: (group) => h("a", { href: go("jobs", { cause: group.cause, said: group.example }), "data-key": "g" + mark(group) }, group.jobs) },
      { name: "dead", kind: "number", cell: (group) => group.dead.toLocaleString("en") },
      { name: "cause", cell: (group) => group.cause },
      { name: "why", kind: "said", cell: (group) => group.example },
      { name: "such as", cell: (group) => h("a", { class: "id", href: go("job", { id: group.ids[0] }), "data-key": "e" + mark(group) }, group.ids[0].slice(0, 8)) },
      { name: "", cell: act },
    ], found.groups, { cards: true }),
    found.more ? h("p", { class: "quiet" }, `and ${found.more} more kinds: ds failures`) : null,
  ];
}

export const failures = {
  build: () => ({ place: h("div"), keep: {} }),
  async update(parts, _query, _found, ready) {
    const found = await get("api/failures");
    if (!(await ready()) || parts.keep.found === found) return;
    parts.keep.found = found;
    fill(parts.place, section("Failures", found.groups.length ? failuresTable(found) : h("p", {}, "No job has failed.")));
  },
};
