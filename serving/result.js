// One model's part of the page: what it was asked, what it answered, its images.

import { axesOf, drawCurve } from "./curve.js";
import { ask } from "./server.js";

const CELL = 96;  // pixels that an image takes at most, unless it is larger by itself

/** CSS pixels of an image of so many, by a whole number. */
export const shownAs = pixels => pixels * Math.max(1, Math.floor(CELL / pixels));

/** The allowed number of steps nearest to the wanted one; of two, the smaller. */
export const nearest = (allowed, wanted) =>
  allowed.reduce((best, n) => Math.abs(n - wanted) < Math.abs(best - wanted) ? n : best);

/** A version that a model was made from, with its method where the registry still knows it. */
const named = ({ version, method }) => method ? `${version} (${method})` : version;

export class Result {
  constructor(name) {
    this.name = name;
    this.element = document.getElementById("model").content.cloneNode(true).firstElementChild;
    this.element.dataset.model = name;
    this.find("h2").textContent = name;
    this.find("button").setAttribute("aria-label", `${name}: npy`);
    this.find("button").addEventListener("click", () => this.saveArray());
    this.find(".save a").setAttribute("aria-label", `${name}: grid PNG`);
    this.clear();
  }

  find(selector) { return this.element.querySelector(selector); }

  tell(fact, text) { this.find(`[data-fact=${fact}]`).textContent = text; }

  wait() { this.element.setAttribute("aria-busy", "true"); }

  /** Shows an error in the place of the images. */
  fail(message) {
    this.clear();
    this.find(".error").textContent = message;
    this.find(".error").hidden = false;
  }

  clear() {
    this.answer = null;
    this.element.setAttribute("aria-busy", "false");
    this.find("ol").replaceChildren();
    this.find(".error").hidden = true;
    for (const part of this.element.querySelectorAll("dl, svg, .save")) part.toggleAttribute("hidden", true);
    for (const fact of this.element.querySelectorAll("dd")) fact.textContent = "";
    URL.revokeObjectURL(this.find(".save a").href);
  }

  /** Shows an answer; images are cut from the grid that came, and laid out in order. */
  show(card, body, wanted, answer, grid) {
    this.clear();
    Object.assign(this, { card, body, answer });
    const { version, steps, guidance, ms } = answer;
    for (const part of this.element.querySelectorAll("dl, .save")) part.hidden = false;
    this.tell("version", `${version} (${card.method})`);
    const ancestors = this.isCurrent ? card.lineage.map(named) : [];
    this.find("[data-fact=lineage]").parentElement.hidden = !ancestors.length;
    this.tell("lineage", ancestors.join(", "));
    this.tell("steps", steps === wanted ? `${steps}`
      : `${steps}, the nearest to ${wanted} that it allows (${listed(card.steps)})`);
    this.find("[data-fact=guidance]").parentElement.hidden = !guidance;
    this.tell("guidance", guidance ?? "");
    this.tell("time", `${ms.toFixed(0)} ms, ${(ms / body.n).toFixed(1)} ms per image`);
    const whole = this.find(".save a");
    whole.href = URL.createObjectURL(answer.file);
    whole.download = `${this.fileName}.png`;
    this.find("ol").replaceChildren(...cut(grid, body.n).map((url, k) => this.image(url, k)));
  }

  get fileName() {
    const { version, steps } = this.answer;
    return `${version.replaceAll("/", "-")}_seed${this.body.seed}_steps${steps}`;
  }

  image(url, k) {
    const label = this.body.labels?.[k];
    const what = label === undefined ? "" : `class ${this.card.labels[label] ?? label}`;
    const link = Object.assign(document.createElement("a"),
                               { href: url, download: `${this.fileName}_image${k}.png` });
    const [, height, width] = this.card.shape;
    const image = new Image(shownAs(width), shownAs(width) / width * height);
    image.src = url;
    image.alt = `${this.name}: image ${k}${what && `, ${what}`}`;
    link.title = "save as PNG";
    link.append(image);
    const item = document.createElement("li");
    item.append(link, what.replace("class ", ""));
    return item;
  }

  /** Whether the version that answered is the one that the list of models tells of. */
  get isCurrent() { return Boolean(this.answer) && this.answer.version === this.card.version; }

  /** The curve of a metric, if it was measured on the version that answered. */
  curve(metric) {
    return this.isCurrent ? this.card.nfe_curve[metric] : undefined;
  }

  showQuality(metric, axes) {
    if (!this.answer) return;
    const curve = this.curve(metric), { steps } = this.answer;
    this.find("svg").toggleAttribute("hidden", !curve);
    this.tell("quality", !this.isCurrent ? "not known of this version"
      : !curve ? "not measured" : steps in curve
      ? `${short(metric)} ${curve[steps].toPrecision(3)}`
      : `${short(metric)} not measured at ${steps} steps, only at ${Object.keys(curve).join(", ")}`);
    if (curve) drawCurve(this.find("svg"), curve, axes, steps);
  }

  /** The same images to the bit, by the version that made them. */
  async saveArray() {
    const { version, steps } = this.answer, name = this.fileName;
    try {
      const body = { ...this.body, model: version, steps, format: "npy" };
      const url = URL.createObjectURL(await (await ask("v1/generate", { body })).blob());
      Object.assign(document.createElement("a"), { href: url, download: `${name}.npy` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.find(".error").textContent = error.message;
      this.find(".error").hidden = false;
    }
  }
}

/** The same metric of all models, on the same axes. */
export function showQuality(results, metric) {
  const axes = axesOf(results.map(result => result.curve(metric)).filter(Boolean));
  for (const result of results) result.showQuality(metric, axes);
}

export const short = metric => metric.replace(/^eval\//, "");

function listed(steps) {
  const last = steps.at(-1);
  const isRange = steps.length > 2 && last - steps[0] === steps.length - 1;
  return isRange ? `${steps[0]} to ${last}` : steps.join(", ");
}

/** PNG files, as data URLs, of the images in a grid of nearly as many columns as lines. */
function cut(grid, n) {
  const columns = Math.ceil(Math.sqrt(n)), lines = Math.ceil(n / columns);
  const width = grid.width / columns, height = grid.height / lines;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  return Array.from({ length: n }, (_, k) => {
    const x = k % columns * width, y = Math.floor(k / columns) * height;
    context.drawImage(grid, x, y, width, height, 0, 0, width, height);
    return canvas.toDataURL("image/png");
  });
}
