// The page: form, drawing with previews, the shown picture, drag and drop, keys.

import { Form } from "./form.js";
import { Gallery, offer, titleOf } from "./gallery.js";
import { ask, events, keepKey } from "./server.js";
import { Tools } from "./tools.js";

const at = (id) => document.getElementById(id);
const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
const frame = at("frame"), picture = at("picture"), strip = at("strip");

const studio = {
  facts: null,
  form: null,
  gallery: null,
  tools: null,
  shown: null, // {name?, url, settings?, file?}: the picture for the tools
  controller: null, // AbortController of the running work
  job: null,

  say(text, bad = false) {
    at("message").textContent = text;
    at("message").classList.toggle("bad", bad);
  },

  // Show a picture of the gallery or a dropped one, and use it in the tools.
  show(row) {
    this.shown = row;
    this.look(row.url, titleOf(row));
    at("tools").hidden = false;
    at("delete").hidden = !row.name;
    at("reuse").hidden = !row.settings;
    at("save").href = row.url;
    at("save").download = row.name ?? "picture.png";
    tellFacts(row);
    this.tools.changed();
  },

  // Show only the pixels of a preview or of a frame.
  look(url, alt, rough = false) {
    picture.src = url;
    picture.alt = alt;
    picture.hidden = false;
    picture.classList.toggle("rough", rough);
    at("empty").hidden = true;
  },

  get busy() {
    return this.controller !== null;
  },

  // Do some work with progress. Returns the last event, or null if it was cancelled.
  async work(path, body, onEvent = () => {}) {
    if (this.busy) return null;
    this.controller = new AbortController();
    this.progress(0, "Starting");
    setBusy(true);
    this.say("");
    try {
      let last = null;
      for await (const event of events(path, body, this.controller.signal)) {
        if (event.job) this.job = event.job;
        tellProgress(event);
        onEvent(event);
        last = event;
      }
      return last;
    } catch (error) {
      if (error.name !== "AbortError" && error.code !== "cancelled") this.fail(error);
      else this.say("Cancelled.");
      return null;
    } finally {
      this.controller = null;
      this.job = null;
      setBusy(false);
      tellQueue();
    }
  },

  fail(error) {
    if (error.status === 401) askForKey();
    this.say(error.message, true);
  },

  progress(share, text) {
    at("bar").value = share;
    at("phase").textContent = text;
  },

  cancel() {
    if (!this.busy) return;
    const job = this.job;
    this.controller.abort();
    if (job) ask(`/api/jobs/${job}`, { method: "DELETE" }).catch(() => {});
  },
};

function setBusy(busy) {
  at("progress").hidden = !busy;
  at("cancel").disabled = !busy;
  for (const id of ["draw", "edit-go", "between-go", "score-go"]) at(id).disabled = busy;
  frame.setAttribute("aria-busy", String(busy));
}

function seconds(value) {
  if (value === null || value === undefined) return "";
  return value < 90 ? ` · ${Math.max(1, Math.round(value))} s left` : ` · ${Math.round(value / 60)} min left`;
}

function tellProgress(event) {
  if (event.event === "queued") {
    const ahead = event.position - 1;
    studio.progress(0, (ahead ? `Waiting, ${ahead} before this` : "Next") + seconds(event.seconds_left));
  } else if (event.share !== undefined) {
    const tokens = event.tokens_total ? ` ${event.tokens_done}/${event.tokens_total}` : "";
    studio.progress(event.share, `${event.phase ?? "Working"}${tokens}${seconds(event.seconds_left)}`);
  }
}

function tellFacts(row) {
  const settings = row.settings ?? {};
  const facts = at("facts");
  facts.replaceChildren();
  const add = (name, value, kind) => {
    const part = document.createElement("span");
    if (kind) part.className = kind;
    if (name) part.append(`${name} `);
    const strong = document.createElement(name ? "strong" : "span");
    strong.textContent = value;
    part.append(strong);
    facts.append(part);
  };
  if (settings.prompt) add("", settings.prompt, "prompt");
  if (settings.seed !== undefined) add("seed", settings.seed);
  if (settings.guidance !== undefined) add("guidance", settings.guidance);
  if (typeof settings.log_prob_gain === "number") add("the prompt adds", `${Math.round(settings.log_prob_gain)} nats`);
  if (settings.width) add("", `${settings.width}×${settings.height}`);
}

// Draw with the settings of the form.
async function draw() {
  if (studio.busy) return;
  const wish = studio.form.wish();
  if (!wish) return;
  studio.tools.close();
  const slots = [];
  showStrip([]);
  at("facts").replaceChildren();
  at("tools").hidden = true;
  const done = await studio.work("/api/generate", wish, (event) => {
    if (event.event === "preview") {
      const url = `data:image/webp;base64,${event.b64_json}`;
      slots[event.picture] = { ...slots[event.picture], url };
      if (!event.picture) studio.look(url, "The picture so far", true);
      if (wish.n > 1) showStrip(slots);
    } else if (event.event === "picture") {
      slots[event.picture] = event;
      studio.gallery.append(event);
    }
  });
  if (!done) {
    restore();
    return;
  }
  const rows = done.pictures.sort((a, b) => a.picture - b.picture);
  studio.gallery.mark(rows[0].name);
  studio.show(rows[0]);
  if (rows.length > 1) showStrip(rows);
  studio.say(rows.length > 1 ? `${rows.length} pictures are drawn.` : "The picture is drawn.");
}

// Show the previous picture again after work without a result.
function restore() {
  showStrip([]);
  const said = at("message").textContent, bad = at("message").classList.contains("bad");
  if (studio.shown) studio.show(studio.shown);
  else {
    picture.hidden = true;
    at("empty").hidden = false;
  }
  studio.say(said, bad);
}

function showStrip(rows) {
  strip.hidden = rows.length < 2;
  strip.replaceChildren();
  rows.forEach((row, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Picture ${number + 1}`);
    button.setAttribute("aria-pressed", String(row.name !== undefined && row.name === studio.shown?.name));
    const image = document.createElement("img");
    image.src = row.url;
    image.alt = "";
    button.append(image);
    button.addEventListener("click", () => {
      if (!row.name) return;
      studio.gallery.mark(row.name);
      studio.show(row);
      for (const other of strip.children) other.setAttribute("aria-pressed", String(other === button));
    });
    strip.append(button);
  });
}

// A dropped or opened picture: put its settings into the form, and use it in the tools.
async function use(file) {
  const row = { url: URL.createObjectURL(file), file };
  try {
    const form = new FormData();
    form.append("image", file);
    row.settings = (await ask("/api/settings", { method: "POST", body: form })).settings;
  } catch (error) {
    studio.fail(error);
    return;
  }
  if (row.settings) studio.form.fill(row.settings);
  studio.show(row);
  studio.say(
    row.settings
      ? "Its settings are in the form."
      : "This picture has no settings; it can be edited, varied and measured.",
  );
  showStrip([]);
  studio.gallery.mark(null);
}

async function copy() {
  try {
    const answer = await fetch(studio.shown.url);
    let blob = await answer.blob();
    if (blob.type !== "image/png") blob = await asPng(blob);
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    studio.say("The picture is on the clipboard.");
  } catch {
    studio.say("The browser does not let pages write pictures to the clipboard here.", true);
  }
}

async function asPng(blob) {
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

async function remove() {
  const { name } = studio.shown;
  if (!name || !confirm("Delete this picture from the disk?")) return;
  try {
    await ask(`/api/gallery/${name}`, { method: "DELETE" });
    studio.gallery.remove(name);
    if (!studio.gallery.rows.length) location.reload();
    studio.say("The picture is deleted.");
  } catch (error) {
    studio.fail(error);
  }
}

async function tellQueue() {
  try {
    const queue = await ask("/api/queue");
    const parts = [];
    if (queue.drawing) parts.push(`drawing ${queue.drawing}`);
    if (queue.waiting) parts.push(`${queue.waiting} waiting`);
    at("queue").textContent = parts.join(" · ") || "idle";
  } catch {
    at("queue").textContent = "the server does not answer";
  }
}

function askForKey() {
  const dialog = at("key-dialog");
  if (!dialog.open) dialog.showModal();
}

function listen() {
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  at("cancel").addEventListener("click", () => studio.cancel());
  at("reuse").addEventListener("click", () => {
    studio.form.fill(studio.shown.settings);
    studio.say("Its settings are in the form.");
  });
  at("copy").addEventListener("click", copy);
  at("delete").addEventListener("click", remove);
  at("open").addEventListener("change", (event) => {
    if (event.target.files[0]) use(event.target.files[0]);
    event.target.value = "";
  });
  picture.addEventListener("dragstart", (event) => {
    if (studio.shown?.name) offer(event, studio.shown);
  });
  at("key-form").addEventListener("submit", () => {
    keepKey(at("key").value);
    location.reload();
  });
  document.addEventListener("keydown", keys);
  listenToDrops();
}

function keys(event) {
  if (event.key === "Enter" && (isMac ? event.metaKey : event.ctrlKey)) {
    event.preventDefault();
    draw();
  } else if (event.key === "Escape" && studio.busy) {
    event.preventDefault();
    studio.cancel();
  } else if (["ArrowLeft", "ArrowRight"].includes(event.key) && event.target === document.body) {
    event.preventDefault();
    studio.gallery.step(event.key === "ArrowLeft" ? -1 : 1, true);
  }
}

function listenToDrops() {
  let depth = 0;
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => {
    if (!files(event)) return;
    depth += 1;
    at("drop").hidden = false;
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) at("drop").hidden = true;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    at("drop").hidden = true;
    const file = event.dataTransfer.files[0];
    if (file) use(file);
  });
}

async function start() {
  at("draw-key").textContent = isMac ? "⌘ ↵" : "Ctrl ↵";
  studio.gallery = new Gallery((row) => {
    if (studio.busy) return;
    showStrip([]);
    studio.show(row);
  });
  listen();
  try {
    studio.facts = await ask("/api/capabilities");
  } catch (error) {
    studio.fail(error);
    return;
  }
  const { model } = studio.facts;
  at("model").textContent = [model.model_name || model.name, studio.facts.device].join(" · ");
  studio.form = new Form(studio.facts);
  studio.tools = new Tools(studio);
  await studio.gallery.load();
  if (studio.gallery.rows.length) studio.gallery.choose(studio.gallery.rows[0].name);
  tellQueue();
  setInterval(() => document.hidden || tellQueue(), 4000);
  document.documentElement.dataset.ready = "yes";
}

start();
