// Talking to the page's server, and reading the address: which view, of which run, with which choices.
import { note } from "./dom.js";

const token = location.pathname.split("/")[1];
const tags = new Map();

// What the latest look said of the current run.
export const state = { alive: false, past: false };

export function address(path, query = {}) {
  const given = Object.entries({ ...query, run: query.run ?? where().run }).filter(([, value]) => value !== "" && value !== undefined);
  return path + (given.length ? "?" + new URLSearchParams(given) : "");
}

export async function get(path, query = {}) {
  const url = address(path, query);
  const known = tags.get(url);
  const answer = await fetch(url, { headers: known ? { "If-None-Match": known.tag } : {}, cache: "no-store" });
  if (answer.status === 304) return known.value;
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error.what), { answered: answer.status, fix: value.error.fix });
  if (tags.size > 40) tags.clear();
  tags.set(url, { tag: answer.headers.get("ETag"), value });
  return value;
}

export function told(error) {
  return error.message + (error.fix ? ". To do: " + error.fix : "");
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Token": token };
  try {
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    const value = await answer.json();
    note(answer.ok ? value.said : told({ message: value.error.what, fix: value.error.fix }));
    if (answer.ok) dispatchEvent(new Event("done"));
  } catch {
    note("The page's server does not answer; nothing was done.");
  }
  dispatchEvent(new Event("soon"));
}

export function where() {
  const [name, text = ""] = location.hash.slice(1).split("?");
  const { run = "", ...query } = Object.fromEntries(new URLSearchParams(text));
  return { name, query, run };
}

// The address of a view. The run that is looked at stays the same, unless another one is given.
export function go(name, query = {}) {
  const given = Object.entries({ ...query, run: query.run ?? where().run }).filter(([, value]) => value);
  return "#" + name + (given.length ? "?" + new URLSearchParams(given) : "");
}
