// The tools for the shown picture: edit, vary, interpolate to another one, measure.

import { Mask } from "./mask.js";
import { SurpriseMap } from "./map.js";
import { titleOf } from "./gallery.js";

const at = (id) => document.getElementById(id);
const NAMES = ["edit", "vary", "between", "surprise"];
const FRAMES = 9;

export class Tools {
  constructor(studio) {
    this.studio = studio;
    this.open = null;
    this.mask = new Mask(at("paint"), at("picture"));
    this.map = new SurpriseMap(at("map"), at("picture"), at("reading"));
    this.frames = [];
    this.direction = newDirection();
    for (const name of NAMES) at(`tab-${name}`).addEventListener("click", () => this.choose(name));
    at("tools").querySelector("[role=tablist]").addEventListener("keydown", (event) => this.key(event));
    at("edit-go").addEventListener("click", () => this.edit());
    at("clear").addEventListener("click", () => this.mask.clear());
    at("invert").addEventListener("click", () => this.mask.invert());
    at("brush").addEventListener("input", () => (this.mask.brush = Number(at("brush").value)));
    at("strength").addEventListener("input", () => (at("strength-told").value = at("strength").value));
    at("strength").addEventListener("change", () => this.vary(false));
    at("other-way").addEventListener("click", () => {
      this.direction = newDirection();
      this.vary(false);
    });
    at("vary-keep").addEventListener("click", () => this.vary(true));
    at("between-go").addEventListener("click", () => this.between());
    at("place").addEventListener("input", () => this.showFrame());
    at("score-go").addEventListener("click", () => this.score());
    at("opacity").addEventListener("input", () => this.map.setOpacity(Number(at("opacity").value)));
  }

  // Called when another picture is shown.
  changed() {
    this.frames = [];
    at("place").disabled = true;
    at("place").value = 0;
    at("strength").value = 0;
    at("strength-told").value = "0";
    at("vary-keep").disabled = true;
    at("scores").replaceChildren();
    at("reading").textContent = "";
    this.map.clear();
    const prompt = this.prompt;
    at("edit-prompt").value = prompt;
    at("prompts").value = this.alternatives(prompt).join("\n");
    this.listOthers();
    if (this.open === "edit") this.mask.start();
    else this.mask.stop();
  }

  get prompt() {
    return this.studio.shown?.settings?.prompt ?? at("prompt").value.trim();
  }

  // The prompt, and copies of it with one word replaced by others of the same kind.
  alternatives(prompt) {
    const rows = [prompt];
    const kinds = this.studio.facts.vocabulary?.kinds ?? {};
    for (const words of Object.values(kinds)) {
      const inside = words.find((word) => ` ${prompt} `.includes(` ${word} `));
      if (!inside) continue;
      for (const other of words.filter((word) => word !== inside).slice(0, 3)) {
        rows.push(` ${prompt} `.replace(` ${inside} `, ` ${other} `).trim());
      }
      break;
    }
    return rows.filter(Boolean);
  }

  choose(name) {
    this.open = this.open === name ? null : name;
    this.studio.say("");
    for (const one of NAMES) {
      const chosen = one === this.open;
      at(one).hidden = !chosen;
      at(`tab-${one}`).setAttribute("aria-selected", String(chosen));
      at(`tab-${one}`).tabIndex = chosen || (!this.open && one === NAMES[0]) ? 0 : -1;
    }
    if (this.open === "edit") this.mask.start();
    else this.mask.stop();
    if (this.open !== "surprise") this.map.hide();
    else this.map.show();
    if (this.open === "between") this.listOthers();
  }

  close() {
    if (this.open) this.choose(this.open);
    this.map.clear();
  }

  key(event) {
    const place = NAMES.findIndex((name) => at(`tab-${name}`) === event.target);
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (place < 0 || !by) return;
    event.preventDefault();
    const next = at(`tab-${NAMES[(place + by + NAMES.length) % NAMES.length]}`);
    for (const name of NAMES) at(`tab-${name}`).tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  // A form with the shown picture, by its name or as the file it was read from.
  body(fields) {
    const form = new FormData();
    const { name, file } = this.studio.shown;
    if (name) form.append("picture", name);
    else form.append("image", file);
    form.append("stream", "true");
    for (const [key, value] of Object.entries(fields)) {
      for (const one of Array.isArray(value) ? value : [value]) form.append(key, one);
    }
    return form;
  }

  weight() {
    const value = this.studio.shown?.settings?.guidance;
    return typeof value === "number" ? { guidance: value } : {};
  }

  async edit() {
    const mask = await this.mask.png();
    if (!mask) {
      this.studio.say("Paint over the part to redraw.", true);
      at("paint").focus();
      return;
    }
    const best = Number(at("edit-best").value) || 1;
    const seed = newDirection();
    const form = this.body({ prompt: at("edit-prompt").value.trim(), best_of: best, seed });
    form.append("mask", mask, "mask.png");
    this.mask.stop();
    const done = await this.studio.work("/api/edit", form);
    if (this.open === "edit") this.mask.start();
    if (done) this.keep(done.pictures);
  }

  keep(rows) {
    for (const row of rows) this.studio.gallery.append(row);
    if (!rows.length) return;
    this.studio.gallery.mark(rows[0].name);
    this.studio.show(rows[0]);
    this.studio.say("The picture is drawn.");
  }

  // The slider shows a variation without saving it; a button saves the shown one.
  async vary(keep) {
    const strength = at("strength").value;
    const form = this.body({
      prompt: this.prompt, strength, seed: this.direction, keep: String(keep), ...this.weight(),
    });
    const done = await this.studio.work("/api/vary", form);
    if (!done) return;
    if (keep) {
      this.keep(done.pictures);
      return;
    }
    this.studio.look(`data:image/png;base64,${done.pictures[0].b64_json}`, `Variation, strength ${strength}`);
    at("vary-keep").disabled = false;
    if (at("strength").value !== strength) this.vary(false);
  }

  listOthers() {
    const select = at("other");
    const before = select.value;
    select.replaceChildren();
    for (const row of this.studio.gallery.rows) {
      if (row.name !== this.studio.shown?.name) select.add(new Option(titleOf(row), row.name));
    }
    if ([...select.options].some((option) => option.value === before)) select.value = before;
    at("between-go").disabled = !select.options.length;
    at("other-told").textContent = select.options.length
      ? "Pictures between this one and another one of the gallery."
      : "Draw another picture first; this tool needs two.";
  }

  async between() {
    const other = this.studio.gallery.row(at("other").value);
    if (!other) return;
    const prompt2 = other.settings?.prompt ?? this.prompt;
    const fields = { prompt: this.prompt, prompt2, frames: FRAMES };
    if (this.studio.facts.prompt === "class" && prompt2 !== this.prompt) fields.prompt2 = this.prompt;
    const form = this.body(fields);
    form.append("picture2", other.name);
    const done = await this.studio.work("/api/interpolate", form);
    if (!done) return;
    this.frames = done.frames.map((frame) => `data:image/png;base64,${frame}`);
    at("place").max = this.frames.length - 1;
    at("place").disabled = false;
    at("place").value = Math.floor(this.frames.length / 2);
    this.showFrame();
    at("place").focus();
    this.studio.say("Move the slider from one picture to the other.");
  }

  showFrame() {
    const place = Number(at("place").value);
    if (!this.frames[place]) return;
    this.studio.look(this.frames[place], `Picture ${place + 1} of ${this.frames.length}`);
    at("place").setAttribute("aria-valuetext", `${place + 1} of ${this.frames.length}`);
  }

  async score() {
    const prompts = at("prompts").value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, 16);
    const done = await this.studio.work("/api/score", this.body({ prompt: prompts.length ? prompts : [""] }));
    if (!done) return;
    this.map.draw(done.map, Number(at("opacity").value));
    showScores(done);
    this.studio.say("Light places are the least probable for the model. Point at one to read its bits.");
  }
}

function newDirection() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

// A table of the prompts with the probability of each.
function showScores(done) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of ["Prompt", "Adds (nats)", "Bits/dim", "Probability"]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const rows = table.createTBody();
  for (const row of done.prompts) {
    const line = rows.insertRow();
    line.insertCell().textContent = row.prompt || "(no prompt)";
    line.insertCell().textContent = row.gain.toFixed(1);
    line.insertCell().textContent = row.bits_per_dim.toFixed(3);
    const cell = line.insertCell();
    const meter = document.createElement("meter");
    meter.value = row.posterior;
    meter.setAttribute("aria-label", `Probability of ${row.prompt || "no prompt"}`);
    cell.append(meter, ` ${(100 * row.posterior).toFixed(1)} %`);
  }
  at("scores").replaceChildren(table);
}
