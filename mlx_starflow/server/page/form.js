// The form with the prompt and the settings. It can be filled from a picture's settings and is kept
// between visits.

const at = (id) => document.getElementById(id);
const KEPT = "mlx-starflow-form";
const MOST_SEED = 2 ** 32;

export class Form {
  constructor(facts) {
    this.facts = facts;
    this.known = facts.vocabulary?.words?.length ? new Set(facts.vocabulary.words) : null;
    this.kinds = facts.vocabulary?.kinds ?? {};
    fillChoices(at("ratio"), Object.entries(facts.sizes).map(([ratio, size]) => [ratio, `${ratio} (${size})`]));
    fillChoices(at("sampler"), facts.samplers.map((name) => [name, name]));
    at("guidance").value = facts.defaults.guidance;
    at("guidance").disabled = facts.prompt === "none";
    at("sampler").value = facts.defaults.sampler;
    at("prompt").disabled = facts.prompt === "none";
    at("negative-field").hidden = facts.prompt !== "text";
    at("count").max = facts.server.pictures;
    at("best").max = facts.server.best_of;
    at("prompt").placeholder = this.kinds.class?.[0] ?? "a fox in snow";
    this.showVocabulary();
    this.newSeed();
    this.restore();
    at("prompt").addEventListener("input", () => this.mark());
    at("prompt").addEventListener("scroll", () => (at("marks").scrollTop = at("prompt").scrollTop));
    at("dice").addEventListener("click", () => this.newSeed());
    at("sampler").addEventListener("change", () => this.allowSteps());
    at("form").addEventListener("input", () => this.keep());
    this.mark();
    this.allowSteps();
  }

  newSeed() {
    at("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  }

  allowSteps() {
    at("steps").disabled = at("sampler").value === "sequential";
  }

  // The request for the server; unless the seed is locked, it has a new random seed.
  wish() {
    const typed = at("seed").value.trim();
    const seed = Number(typed);
    if (!/^\d+$/.test(typed) || seed >= MOST_SEED) {
      at("seed").focus();
      at("message").textContent = `The seed is a whole number below ${MOST_SEED}.`;
      return null;
    }
    if (!at("lock").checked && this.drawn === seed) {
      this.newSeed();
    }
    this.drawn = Number(at("seed").value);
    const best = Number(at("best").value) || 1;
    const wish = {
      prompt: at("prompt").value.trim(),
      seed: this.drawn,
      n: best > 1 ? 1 : Number(at("count").value) || 1,
      sampler: at("sampler").value,
      aspect_ratio: at("ratio").value,
      best_of: best,
    };
    if (at("guidance").value !== "" && !at("guidance").disabled) wish.guidance = Number(at("guidance").value);
    if (at("steps").value && !at("steps").disabled) wish.steps = Number(at("steps").value);
    if (at("negative").value.trim() && wish.guidance !== 0) wish.negative_prompt = at("negative").value.trim();
    return wish;
  }

  // Fill the form with the settings of a picture.
  fill(settings) {
    const set = (id, value) => (at(id).value = value ?? "");
    set("prompt", settings.prompt);
    if (Number.isInteger(settings.seed)) {
      set("seed", settings.seed);
      at("lock").checked = true;
    }
    if (typeof settings.guidance === "number") set("guidance", settings.guidance);
    if (this.facts.samplers.includes(settings.sampler)) set("sampler", settings.sampler);
    if (settings.aspect_ratio in this.facts.sizes) set("ratio", settings.aspect_ratio);
    set("steps", settings.max_sweeps ?? settings.steps);
    set("negative", settings.negative_prompt);
    set("count", 1);
    set("best", 1);
    this.mark();
    this.allowSteps();
    this.keep();
  }

  unknown(text) {
    const found = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
    if (this.known) return [...new Set(found.filter((word) => !this.known.has(word)))];
    const classes = this.kinds.class;
    const name = text.trim();
    if (!classes || !name || classes.includes(name) || /^\d+$/.test(name)) return [];
    return [name];
  }

  // Underline words that the model does not know, and name them.
  mark() {
    const text = at("prompt").value;
    const unknown = this.unknown(text);
    const marks = at("marks");
    marks.replaceChildren();
    const parts = this.known ? text.split(/([\p{L}\p{N}_]+)/u) : [text];
    for (const part of parts) {
      if (unknown.includes(this.known ? part.toLowerCase() : part.trim())) {
        const mark = document.createElement("mark");
        mark.textContent = part;
        marks.append(mark);
      } else {
        marks.append(part);
      }
    }
    at("unknown").textContent = unknown.length ? `Not known to this model: ${unknown.join(", ")}` : "";
  }

  showVocabulary() {
    const kinds = Object.entries(this.kinds).filter(([, words]) => words.length);
    at("words").hidden = !kinds.length;
    for (const [kind, words] of kinds) {
      const title = document.createElement("p");
      title.textContent = kind;
      const chips = document.createElement("div");
      chips.className = "chips";
      for (const word of words.slice(0, 200)) {
        const chip = document.createElement("button");
        chip.type = "button";
        chip.textContent = word;
        chip.addEventListener("click", () => this.insert(word, kind === "class"));
        chips.append(chip);
      }
      at("vocabulary").append(title, chips);
    }
  }

  insert(word, alone) {
    const box = at("prompt");
    if (alone) {
      box.value = word;
    } else {
      const start = box.selectionStart ?? box.value.length;
      const before = box.value.slice(0, start);
      const space = before && !before.endsWith(" ") ? " " : "";
      box.setRangeText(`${space}${word} `, start, box.selectionEnd ?? start, "end");
    }
    box.focus();
    this.mark();
    this.keep();
  }

  keep() {
    const values = {};
    for (const id of ["prompt", "seed", "count", "guidance", "ratio", "sampler", "steps", "best", "negative"]) {
      values[id] = at(id).value;
    }
    values.lock = at("lock").checked;
    values.model = this.facts.model.weights;
    localStorage.setItem(KEPT, JSON.stringify(values));
  }

  restore() {
    let values = {};
    try {
      values = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    } catch {
      return;
    }
    if (values.model !== this.facts.model.weights) return;
    for (const [id, value] of Object.entries(values)) {
      if (["lock", "model"].includes(id) || typeof value !== "string") continue;
      const field = at(id);
      if (field && (field.tagName !== "SELECT" || [...field.options].some((o) => o.value === value))) field.value = value;
    }
    at("lock").checked = values.lock === true;
  }
}

function fillChoices(select, rows) {
  for (const [value, text] of rows) select.add(new Option(text, value));
}
