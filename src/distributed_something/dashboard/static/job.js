// One job: its values, its attempts, its log, and its files as a tree.
import { bytes, command, facts, fill, h, section, table } from "./dom.js";
import { address, get, go, state } from "./net.js";
import { Log } from "./log.js";
import { drop, retry } from "./overview.js";

export const job = {
  build: () => {
    const log = new Log();
    const title = h("h2", {}, "Log");
    const empty = h("p", { class: "quiet" });
    const place = h("section", { "aria-label": "Log" }, title, log.bar, log.text, empty);
    return { head: h("div"), log: place, files: h("div", { class: "grid2" }), keep: { next: 0, title, empty, view: log } };
  },
  async update(parts, query, _found, ready) {
    const found = await get("api/job", { id: query.id });
    if (!(await ready())) return;
    const { keep } = parts;
    if (keep.found !== found) {
      keep.found = found;
      fill(parts.head, head(found));
      fill(parts.files, files("Inputs", found.inputs, query.id), files("Outputs", found.outputs, query.id, found.job.output, found.output_at));
    }
    const running = found.attempts.at(-1);
    const place = query.log ?? running?.log ?? found.job.log;
    const begin = place?.split("+")[0];
    const whose = found.attempts.find((each) => each.log?.split("+")[0] === begin)?.attempt;
    await log(keep, query.id, place, whose ? `Log of attempt ${whose}` : "Log", ready);
  },
};

function head(found) {
  const line = found.job;
  const keys = { ...line.job };
  const group = keys.group ?? {};
  delete keys.group;
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const values = [...Object.entries(group), ...Object.entries(keys)].map(([name, value]) => [name, text(value)]);
  const short = line.id.slice(0, 12);
  return [
    section(`Job ${line.index}`, facts([
      ["state", h("span", { class: "mark " + (found.failed ? "failed" : line.state) }, found.failed ? "failed, to retry" : line.state)],
      ["id", h("span", { class: "id" }, line.id)],
      ...values,
    ]), found.command ? [h("h3", { class: "above" }, state.past ? "Command, as the config is now" : "Command"), command(found.command, "command")] : null,
    h("div", { class: "commands" }, command(`ds logs ${short}`, "logs"), command(`ds replay ${short}`, "replay")), found.made_in ? h("p", {}, "Its outputs were made in an earlier run: ", h("a", { href: go("job", { id: line.id, run: found.made_in }), "data-key": "made" }, `its log in run ${found.made_in}`)) : null,
    line.state === "dead" && !state.past ? h("div", { class: "buttons" }, h("button", { "data-key": "again", onclick: () => retry({ ids: [line.id] }, 1, "Retry this job") }, "Retry this job"),
      h("button", { "data-key": "out", onclick: () => drop({ ids: [line.id] }, 1, "Take out") }, "Take out")) : null),
    section("Attempts", found.attempts.length ? table("Attempts", [
      { name: "attempt", kind: "number", cell: (each) => each.attempt ?? "" },
      { name: "ended", cell: (each) => h("span", { class: "mark " + each.name }, each.name) },
      { name: "cause", cell: (each) => [each.cause ?? "", each.detail && !/^exit code \d+$/.test(each.detail) ? h("div", { class: "quiet" }, each.detail) : null] },
      { name: "figures", kind: "said", cell: (each) => each.figures.map(([name, value]) => `${name} ${value}`).join(" · ") },
      { name: "log", cell: (each) => (each.log ? h("a", { href: go("job", { id: line.id, log: each.log }), "aria-label": `log of attempt ${each.attempt}`, "data-key": "l" + each.log }, "log") : "") },
    ], found.attempts, { cards: true }) : h("p", { class: "quiet" }, "It waits for its first attempt.")),
  ];
}

async function log(keep, id, place, title, ready) {
  const { view } = keep;
  if (keep.title.textContent !== title) keep.title.textContent = title;
  view.bar.hidden = view.text.hidden = !place;
  keep.empty.textContent = place ? "" : "It has printed nothing.";
  if (!place) return;
  const begin = place.split("+")[0];
  if (keep.begin !== begin) { keep.begin = begin; keep.next = 0; keep.ended = false; view.clear(); }
  if (keep.ended) return;
  const found = await get("api/log", { id, place, from: keep.next });
  if (!(await ready()) || keep.begin !== begin) return;
  keep.empty.textContent = found.skipped ? `The first ${found.skipped.toLocaleString("en")} bytes are left out: ds logs ${id.slice(0, 12)} prints all.` : "";
  if (found.text) view.append(found.text);
  if (found.error) view.tell(found.error);
  keep.next = found.next;
  keep.ended = found.ended;
}

// Files below a prefix as a tree: each folder with the sum of what is in it.
function tree(found, prefix) {
  const root = { folders: new Map(), files: [], size: 0 };
  for (const file of found) {
    const path = (prefix && file.key.startsWith(prefix + "/") ? file.key.slice(prefix.length + 1) : file.key).split("/");
    let place = root;
    for (const name of path.slice(0, -1)) {
      if (!place.folders.has(name)) place.folders.set(name, { folders: new Map(), files: [], size: 0 });
      place.size += file.bytes;
      place = place.folders.get(name);
    }
    place.size += file.bytes;
    place.files.push([path.at(-1), file]);
  }
  return root;
}

function files(title, found, id, prefix, at) {
  const link = (name, file) => [h("a", { href: address("file", { id, key: file.key }), target: "_blank", rel: "noopener" }, name), " ", h("span", { class: "quiet" }, file.size)];
  const list = (place) => h("ul", { class: "tree" },
    [...place.folders].map(([name, inside]) => h("li", {}, h("details", { open: place.folders.size < 6 }, h("summary", {}, name + "/ ", h("span", { class: "quiet" }, bytes(inside.size))), list(inside)))),
    place.files.map(([name, file]) => h("li", {}, link(name, file))));
  const pictures = found.filter((file) => file.picture).slice(0, 24);
  const picture = (file) => {
    const image = h("img", { src: address("thumbnail", { id, key: file.key }), alt: file.key.split("/").at(-1), loading: "lazy" });
    image.addEventListener("error", () => image.closest("li")?.classList.add("none"));
    return h("li", {}, h("a", { href: address(file.kind === "folder" ? "thumbnail" : "file", { id, key: file.key }), target: "_blank", rel: "noopener", "aria-label": `${file.key.split("/").at(-1)}, in full` }, image));
  };
  const listed = found.filter((file) => file.kind !== "folder");
  const whole = tree(listed, prefix);
  return section(title,
    pictures.length ? h("ul", { class: "pictures" }, pictures.map(picture)) : null,
    found.length ? [list(whole), h("p", { class: "quiet" }, `${listed.length.toLocaleString("en")} ${listed.length === 1 ? "file" : "files"}, ${bytes(whole.size)}`)] : h("p", { class: "quiet" }, "None."),
    at ? h("div", { class: "commands" }, command(at, "at" + title)) : null);
}
