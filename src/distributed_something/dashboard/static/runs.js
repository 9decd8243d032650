// Every run of the project, and what differs between two.
import { fill, h, section, table } from "./dom.js";
import { get, go } from "./net.js";

const number = (value) => (value ?? 0).toLocaleString("en");

export const runs = {
  build: () => ({ place: h("div"), keep: { chosen: [] } }),
  async update(parts, _query, _found, ready) {
    const found = await get("api/runs", { run: "" });
    if (!(await ready()) || parts.keep.found === found) return;
    parts.keep.found = found;
    fill(parts.place, list(found.runs, parts.keep));
  },
};

function list(found, keep) {
  const button = h("button", { type: "button", "data-key": "compare", onclick: () => { location.hash = go("compare", { one: keep.chosen[0], other: keep.chosen[1], run: "" }); } }, "Compare the two");
  const boxes = new Map();
  const changed = () => {
    button.disabled = keep.chosen.length !== 2;
    for (const [run, box] of boxes) box.checked = keep.chosen.includes(run);
  };
  const choose = (run) => () => {
    keep.chosen = keep.chosen.includes(run) ? keep.chosen.filter((each) => each !== run) : [...keep.chosen, run].slice(-2);
    keep.chosen.sort();
    changed();
  };
  for (const each of found) boxes.set(each.run, h("input", { type: "checkbox", "aria-label": `compare run ${each.run}`, "data-key": "b" + each.run, onchange: choose(each.run) }));
  changed();
  return section("Runs", table("Runs", [
    { name: "", kind: "box", cell: (each) => boxes.get(each.run) },
    { name: "run", kind: "whole", cell: (each) => [h("a", { href: go("overview", { run: each.current ? "" : each.run }), "data-key": each.run }, each.run), each.current ? h("span", { class: "quiet" }, " current") : null] },
    { name: "started", cell: (each) => (each.started ?? "").slice(0, 16).replace("T", " ") },
    { name: "engine", cell: (each) => each.engine },
    { name: "state", cell: (each) => h("span", { class: each.jobs.dead ? "bad" : "" }, each.state) },
    { name: "jobs", kind: "number", cell: (each) => number(each.jobs.total) },
    { name: "succeeded", kind: "number", cell: (each) => number((each.jobs.succeeded ?? 0) + (each.jobs.skipped ?? 0)) },
    { name: "dead", kind: "number", cell: (each) => (each.jobs.dead ? h("b", { class: "bad" }, number(each.jobs.dead)) : "0") },
    { name: "took", kind: "number", cell: (each) => each.time ?? "" },
    { name: "cost", kind: "number", cell: (each) => each.cost ?? "" },
  ], found, { cards: true }), found.length > 1 ? h("div", { class: "buttons" }, button, h("span", { class: "quiet" }, "Choose two runs.")) : null);
}

export const compare = {
  build: () => ({ place: h("div"), keep: {} }),
  async update(parts, query, _found, ready) {
    if (parts.keep.found) return;
    const found = await get("api/compare", { one: query.one ?? "", other: query.other ?? "", run: "" });
    if (!(await ready())) return;
    parts.keep.found = found;
    fill(parts.place, differences(found));
  },
};

function differences(found) {
  const [one, other] = found.runs;
  const text = (value) => (value === null || value === "" || (Array.isArray(value) && !value.length) ? "(not set)" : Array.isArray(value) ? value.join(", ") : String(value));
  const values = [...Object.entries(found.config), ...Object.entries(found.ran)].map(([name, [before, after]]) => ({ name, before: text(before), after: text(after) }));
  for (const [name, pair] of [["time", found.time], ["cost", found.cost]]) {
    if (pair[0] !== pair[1]) values.push({ name, before: text(pair[0]), after: text(pair[1]) });
  }
  const { both, only_first: first, only_second: second } = found.jobs;
  const such = (each, run) => (each.count ? [`${number(each.count)} only in ${run}, such as `, each.such_as.map((id) => [h("a", { class: "id", href: go("job", { id, run }) }, id.slice(0, 8)), " "])] : null);
  const outcome = (each) => h("li", {}, `${number(each.count)} went from ${each.from} to ${each.to}, such as `, each.such_as.map((id) => [h("a", { class: "id", href: go("job", { id, run: other }) }, id.slice(0, 8)), " "]));
  return [
    section("What differs", h("p", {}, h("a", { href: go("overview", { run: one }), "data-key": "one" }, one), " and ", h("a", { href: go("overview", { run: other }), "data-key": "other" }, other)),
      values.length ? table("Config, what ran, time and cost", [
        { name: "what", cell: (each) => each.name },
        { name: one, kind: "pair", cell: (each) => each.before },
        { name: other, kind: "pair", cell: (each) => each.after },
      ], values, { cards: true }) : h("p", {}, "Config, programs, time and cost are the same.")),
    section("Jobs", h("ul", {}, h("li", {}, `${number(both)} in both`), [such(first, one), such(second, other)].filter(Boolean).map((each) => h("li", {}, each)),
      found.outcomes.map(outcome), found.outputs.map((each) => h("li", {}, `${number(each.count)} have their outputs at another place`)),
      found.outcomes.length ? null : h("li", {}, "their outcomes are the same"))),
  ];
}
