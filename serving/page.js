// The page of images: asks several models for images from the same noise, shows them side by side.

import { Refused, askImages, askModels, useKey } from "./server.js";
import { Result, nearest, short, showQuality, shownAs } from "./result.js";

const AT_FIRST = 4;  // models chosen where the address names none
const PAUSE_MS = 200;  // without another change before images are made anew
const USUAL = "eval/1nn_deviation";
const FIELDS = ["labels", "seed", "n", "guidance"];

const $ = id => document.getElementById(id);
const form = $("form"), door = $("door"), fields = form.elements;
const results = new Map();
let cards = new Map(), listed = "", asked = "", timer = 0, running = new AbortController();
let picked = null, wanted = null, metric = USUAL;

const say = text => { $("status").textContent = text; };
const chosen = () => picked.map(name => cards.get(name)).filter(Boolean);
const sorted = values => [...new Set(values)].sort((a, b) => a - b);
const allowed = () => sorted(chosen().flatMap(card => card.steps));

/** Makes and shows images; whatever is still being made for an older choice is given up. */
async function generate() {
  clearTimeout(timer);
  running.abort();
  running = new AbortController();
  const { signal } = running;
  say("Generating.");
  try {
    drawModels(await askModels(signal));
    door.hidden = true;
    if (!form.reportValidity()) return say("");
    asked = writeAddress();
    const group = chosen(), refused = [];
    draw(group);
    // One after the other, so that none slows another and times can be compared.
    for (const card of group)
      if (!await answer(card, signal)) refused.push(card.id);
    say([summary(group), refused.length && `Refused: ${refused.join(", ")}.`].filter(Boolean).join(" "));
  } catch (error) {
    if (signal.aborted) return;
    openDoor(error);
    say(error.message);
  }
}

async function answer(card, signal) {
  const result = results.get(card.id), aim = wanted, body = question(card);
  try {
    const answered = await askImages({ ...body, format: "grid" }, signal);
    const grid = await createImageBitmap(answered.file, { colorSpaceConversion: "none" });
    signal.throwIfAborted();
    result.show(card, body, aim, answered, grid);
    showQuality([...results.values()], metric);
    return true;
  } catch (error) {
    if (signal.aborted) throw error;
    openDoor(error);
    result.fail(error.message);
    return false;
  }
}

function question(card) {
  const n = Number(fields.n.value), guidance = fields.guidance.value;
  return { model: card.id, n, seed: Number(fields.seed.value), steps: nearest(card.steps, wanted),
           ...card.classes && { labels: labelsFor(card, n) },
           ...card.default_guidance !== null && guidance && { guidance: Number(guidance) } };
}

/** The class of each image: those that are named, or else all, in turn. */
function labelsFor(card, n) {
  const text = fields.labels.value.trim();
  const named = card.labels.includes(text) ? [text]  // a name may hold commas
    : text.split(",").map(part => part.trim()).filter(Boolean);
  const turn = named.length ? named.map(name => /^\d+$/.test(name) ? Number(name) : name)
    : card.labels.map((_, k) => k);
  return Array.from({ length: n }, (_, k) => turn[k % turn.length]);
}

/** Which models share their noise: those of one noise shape. */
function summary(group) {
  if (!group.length) return "Choose a model.";
  const shapes = Map.groupBy(group, card => card.noise_shape.join("x"));
  const seed = `Seed ${fields.seed.value}`;
  if (shapes.size === 1) return `${seed}: all from the same noise.`;
  const parts = [...shapes].map(([shape, some]) => `${some.map(card => card.id).join(", ")} (${shape})`);
  return `${seed}: the same noise only within one shape: ${parts.join("; ")}.`;
}

function openDoor(error) {
  if (!(error instanceof Refused) || error.status !== 401) return;
  door.hidden = false;
  door.elements.key.focus();
}

/** The list of models, drawn anew only if it has changed, so that the focus stays. */
function drawModels(list) {
  cards = new Map(list.data.map(card => [card.id, card]));
  picked ??= list.data.slice(0, AT_FIRST).map(card => card.id);
  const rows = [
    ...list.data.map(({ id, version, problem }) => [id, id === version ? "" : version, problem]),
    ...Object.entries(list.missing).map(([name, why]) => [name, "", `not loaded: ${why}`]),
    ...picked.filter(name => !cards.has(name) && !(name in list.missing))
      .map(name => [name, "", "not served here"])];
  const now = JSON.stringify([rows, picked]);
  if (now !== listed) $("models").replaceChildren(...rows.map(row => modelRow(...row)));
  listed = now;
  drawChoices();
}

function modelRow(name, version, problem) {
  const label = document.createElement("label"), box = document.createElement("input");
  Object.assign(box, { type: "checkbox", name: "model", value: name,
                       checked: picked.includes(name), disabled: !cards.has(name) });
  label.append(box, ` ${name} `, note("", version), note("error", problem && ` ${problem}`));
  return label;
}

const note = (className, text) =>
  Object.assign(document.createElement("small"), { className, textContent: text ?? "" });

/** What can be chosen follows from the models that are. */
function drawChoices() {
  const group = chosen(), steps = allowed();
  wanted ??= group.length ? Math.min(...group.map(card => card.default_steps)) : 1;
  fields.steps.max = Math.max(0, steps.length - 1);
  if (steps.length) fields.steps.value = steps.indexOf(wanted = nearest(steps, wanted));
  drawWanted();
  $("guided").hidden = group.every(card => card.default_guidance === null);
  const names = new Set(group.flatMap(card => card.labels));
  $("names").replaceChildren(...[...names].map(name => new Option(name)));
  const metrics = [...new Set(group.flatMap(card => Object.keys(card.nfe_curve)))];
  if (!metrics.includes(metric)) metric = metrics.includes(USUAL) ? USUAL : metrics[0] ?? "";
  fields.metric.replaceChildren(...metrics.map(name => new Option(short(name), name, false, name === metric)));
  fields.metric.parentElement.hidden = !metrics.length;
}

function drawWanted() {
  $("wanted").textContent = wanted;
  fields.steps.setAttribute("aria-valuetext", `${wanted} ${wanted === 1 ? "step" : "steps"}`);
}

/** A place for each chosen model, in the order of the list. */
function draw(group) {
  for (const { id } of group) if (!results.has(id)) results.set(id, new Result(id));
  for (const id of results.keys()) if (!group.some(card => card.id === id)) results.delete(id);
  const places = group.map(card => results.get(card.id));
  for (const place of places) place.wait();
  const cell = Math.max(...group.map(card => shownAs(card.shape[2])), 0);
  $("results").style.setProperty("--cell", `${cell}px`);
  $("results").replaceChildren(...places.map(place => place.element));
}

function writeAddress() {
  const values = FIELDS.map(name => [name, fields[name].value]).filter(([, value]) => value);
  const models = picked.map(name => ["model", name]);
  const address = new URLSearchParams([...models, ...values, ["steps", wanted], ["metric", metric]]);
  history.replaceState(null, "", `#${address}`);
  return `${address}`;
}

function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  for (const name of FIELDS) if (address.has(name)) fields[name].value = address.get(name);
  if (address.has("model")) picked = address.getAll("model");
  if (Number(address.get("steps"))) wanted = Number(address.get("steps"));
  metric = address.get("metric") ?? metric;
}

/** Generates once no change has followed for a moment, if anything is other than it was. */
function soon() {
  clearTimeout(timer);
  timer = setTimeout(() => { if (!form.checkValidity() || writeAddress() !== asked) generate(); }, PAUSE_MS);
}

form.addEventListener("submit", event => { event.preventDefault(); generate(); });
form.addEventListener("change", soon);
form.addEventListener("input", ({ target }) => {
  if (target.name === "steps") {
    wanted = allowed()[target.value];
    drawWanted();
    soon();
  } else if (target.name === "model") {
    const boxes = [...$("models").querySelectorAll("input")];
    picked = boxes.filter(box => box.checked).map(box => box.value);
    drawChoices();
  } else if (target.name === "metric") {
    metric = target.value;
    showQuality([...results.values()], metric);
    asked = writeAddress();
  }
});
$("dice").addEventListener("click", () => {
  fields.seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
  soon();
});
door.addEventListener("submit", event => {
  event.preventDefault();
  useKey(door.elements.key.value);
  generate();
});
addEventListener("hashchange", () => { readAddress(); generate(); });
readAddress();
generate();
