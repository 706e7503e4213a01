// The surprise map: the bits of every token, as colours over the picture and as text.

const STOPS = [
  [22, 11, 57], [86, 16, 110], [147, 38, 103], [202, 66, 75], [240, 112, 32], [252, 176, 20], [250, 236, 130],
];

export class SurpriseMap {
  constructor(canvas, picture, reading) {
    this.canvas = canvas;
    this.picture = picture;
    this.reading = reading;
    this.map = null;
    this.at = { row: 0, column: 0 };
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerdown", (event) => this.point(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  draw(map, opacity) {
    this.map = map;
    const values = map.values.flat();
    this.low = Math.min(...values);
    this.high = Math.max(...values);
    this.canvas.width = map.columns;
    this.canvas.height = map.rows;
    const pen = this.canvas.getContext("2d");
    const pixels = pen.createImageData(map.columns, map.rows);
    values.forEach((value, i) => {
      const share = this.high > this.low ? (value - this.low) / (this.high - this.low) : 0;
      pixels.data.set([...colour(share), 255], 4 * i);
    });
    pen.putImageData(pixels, 0, 0);
    this.setOpacity(opacity);
    this.show();
    document.getElementById("low").textContent = this.low.toFixed(2);
    document.getElementById("high").textContent = `${this.high.toFixed(2)} ${map.unit}`;
    document.getElementById("scale").hidden = false;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    this.canvas.setAttribute("aria-label", `Surprise map, ${map.rows} by ${map.columns} tokens. Arrow keys read them.`);
    this.reading.textContent =
      `${this.low.toFixed(2)} to ${this.high.toFixed(2)} ${map.unit}, mean ${mean.toFixed(2)}`;
  }

  setOpacity(share) {
    this.canvas.style.opacity = share;
  }

  show() {
    this.canvas.hidden = !this.map;
  }

  hide() {
    this.canvas.hidden = true;
  }

  clear() {
    this.map = null;
    document.getElementById("scale").hidden = true;
    this.hide();
  }

  read() {
    const { row, column } = this.at;
    const value = this.map.values[row]?.[column];
    if (value !== undefined) {
      this.reading.textContent = `Row ${row + 1}, column ${column + 1}: ${value.toFixed(3)} ${this.map.unit}`;
    }
  }

  point(event) {
    if (!this.map) return;
    const box = this.canvas.getBoundingClientRect();
    const { columns, rows } = this.map;
    const scale = Math.min(box.width / columns, box.height / rows);
    this.at = {
      column: Math.floor((event.clientX - box.left - (box.width - scale * columns) / 2) / scale),
      row: Math.floor((event.clientY - box.top - (box.height - scale * rows) / 2) / scale),
    };
    this.read();
  }

  key(event) {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move || !this.map) return;
    event.preventDefault();
    this.at = {
      row: Math.max(0, Math.min(this.map.rows - 1, this.at.row + move[0])),
      column: Math.max(0, Math.min(this.map.columns - 1, this.at.column + move[1])),
    };
    this.read();
  }
}

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((from, i) => Math.round(from + (place - low) * (STOPS[low + 1][i] - from)));
}
