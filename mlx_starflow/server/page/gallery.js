// The gallery: the pictures of the output folder, newest first; arrow keys move the selection.

import { ask } from "./server.js";

const list = document.getElementById("pictures");
const older = document.getElementById("older");

export class Gallery {
  constructor(onChoose) {
    this.rows = [];
    this.before = null;
    this.onChoose = onChoose;
    older.addEventListener("click", () => this.load(this.before));
    list.addEventListener("click", (event) => {
      const item = event.target.closest("[role=option]");
      if (item) this.choose(item.dataset.name);
    });
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("dragstart", (event) => {
      const row = this.row(event.target.closest("[role=option]")?.dataset.name);
      if (row) offer(event, row);
    });
  }

  row(name) {
    return this.rows.find((row) => row.name === name);
  }

  async load(before = null) {
    const query = before ? `?before=${encodeURIComponent(before)}` : "";
    const found = await ask(`/api/gallery${query}`);
    if (!before) {
      this.rows = [];
      list.replaceChildren();
    }
    for (const row of found.pictures) this.append(row, false);
    this.before = found.before;
    older.hidden = !found.before;
  }

  append(row, first = true) {
    if (this.row(row.name)) return;
    const item = document.createElement("div");
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", "false");
    item.tabIndex = -1;
    item.draggable = true;
    item.dataset.name = row.name;
    item.setAttribute("aria-label", titleOf(row));
    item.title = titleOf(row);
    const image = document.createElement("img");
    image.src = row.url;
    image.alt = "";
    image.loading = "lazy";
    image.draggable = false;
    item.append(image);
    if (first) {
      this.rows.unshift(row);
      list.prepend(item);
    } else {
      this.rows.push(row);
      list.append(item);
    }
    if (!list.querySelector("[tabindex='0']")) item.tabIndex = 0;
  }

  remove(name) {
    const place = this.rows.findIndex((row) => row.name === name);
    if (place < 0) return;
    this.rows.splice(place, 1);
    list.children[place].remove();
    const next = list.children[Math.min(place, this.rows.length - 1)];
    if (next) this.choose(next.dataset.name, true);
  }

  mark(name) {
    for (const item of list.children) {
      const chosen = item.dataset.name === name;
      item.setAttribute("aria-selected", String(chosen));
      item.tabIndex = chosen ? 0 : -1;
    }
    if (!list.querySelector("[tabindex='0']") && list.firstChild) list.firstChild.tabIndex = 0;
  }

  choose(name, focus = false) {
    const row = this.row(name);
    if (!row) return;
    this.mark(name);
    const item = [...list.children].find((child) => child.dataset.name === name);
    if (focus) item.focus();
    item.scrollIntoView({ block: "nearest" });
    this.onChoose(row);
  }

  // Move the selection by a number of places.
  step(by, focus) {
    if (!this.rows.length) return;
    const now = [...list.children].findIndex((item) => item.getAttribute("aria-selected") === "true");
    const place = now < 0 ? 0 : Math.max(0, Math.min(this.rows.length - 1, now + by));
    this.choose(this.rows[place].name, focus);
  }

  key(event) {
    const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const ends = { Home: -Infinity, End: Infinity };
    const by = moves[event.key] ?? ends[event.key];
    if (by !== undefined) {
      event.preventDefault();
      this.step(by, true);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const item = event.target.closest("[role=option]");
      if (item) this.choose(item.dataset.name, true);
    }
  }
}

// The title of a picture.
export function titleOf(row) {
  const settings = row.settings ?? {};
  const prompt = settings.prompt || "Picture";
  return settings.seed === undefined ? prompt : `${prompt}, seed ${settings.seed}`;
}

// A picture that is dragged to another program becomes a file there.
export function offer(event, row) {
  const url = new URL(row.url, location.href).href;
  event.dataTransfer.effectAllowed = "copy";
  event.dataTransfer.setData("DownloadURL", `image/${row.name.split(".").pop()}:${row.name}:${url}`);
  event.dataTransfer.setData("text/uri-list", url);
  event.dataTransfer.setData("application/x-mlx-starflow", row.name);
}
