// The mask of an edit: painted over the picture with the pointer or with keys.

const PAINT = "#ff3bd4";

export class Mask {
  constructor(canvas, picture) {
    this.canvas = canvas;
    this.picture = picture;
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.brush = 14; // percent of the picture's width
    this.at = null; // position of the keyboard brush, as fractions of width and height
    this.last = null;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => (this.last = null));
    canvas.addEventListener("pointercancel", () => (this.last = null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.point(null));
  }

  // Put an empty mask over the shown picture.
  async start() {
    await this.picture.decode().catch(() => {});
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    if (!width) return;
    if (this.canvas.width !== width || this.canvas.height !== height || this.source !== this.picture.src) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.source = this.picture.src;
    }
    this.canvas.hidden = false;
  }

  stop() {
    this.canvas.hidden = true;
  }

  clear() {
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  invert() {
    this.pen.globalCompositeOperation = "xor";
    this.pen.fillStyle = PAINT;
    this.pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.pen.globalCompositeOperation = "source-over";
  }

  radius() {
    return (this.brush / 200) * this.canvas.width;
  }

  // The pointer's position in pixels of the picture, which is scaled to fit the canvas.
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    return {
      x: (event.clientX - box.left - (box.width - scale * this.canvas.width) / 2) / scale,
      y: (event.clientY - box.top - (box.height - scale * this.canvas.height) / 2) / scale,
    };
  }

  down(event) {
    if (event.button) return;
    event.preventDefault();
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.erasing = event.shiftKey;
    this.stroke(this.last, this.last);
  }

  move(event) {
    if (!this.last) return;
    const next = this.place(event);
    this.stroke(this.last, next);
    this.last = next;
  }

  stroke(from, to) {
    const pen = this.pen;
    pen.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    pen.strokeStyle = PAINT;
    pen.lineCap = "round";
    pen.lineWidth = 2 * this.radius();
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x + 0.01, to.y);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    const paints = event.key === " " || event.key === "Backspace" || event.key === "Delete";
    if (!move && !paints) return;
    event.preventDefault();
    const { width, height } = this.canvas;
    const before = this.at ?? { x: width / 2, y: height / 2 };
    const step = Math.max(1, this.radius());
    const next = move
      ? {
          x: Math.max(0, Math.min(width, before.x + step * move[0])),
          y: Math.max(0, Math.min(height, before.y + step * move[1])),
        }
      : before;
    if (paints || (move && event.shiftKey)) {
      this.erasing = event.key === "Backspace" || event.key === "Delete";
      this.stroke(before, next);
    }
    this.point(next);
  }

  // Show the position of the keyboard brush as a ring that is not part of the mask.
  point(place) {
    this.at = place ?? this.at;
    if (!this.ring) {
      this.ring = document.createElement("span");
      this.ring.id = "ring";
      this.ring.setAttribute("aria-hidden", "true");
      this.canvas.parentElement.append(this.ring);
    }
    this.ring.hidden = place === null;
    if (!place) return;
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const side = 2 * this.radius() * scale;
    const left = (box.width - scale * this.canvas.width) / 2 + scale * place.x - side / 2;
    const top = (box.height - scale * this.canvas.height) / 2 + scale * place.y - side / 2;
    Object.assign(this.ring.style, {
      width: `${side}px`, height: `${side}px`, left: `${left}px`, top: `${top}px`,
    });
  }

  // The mask as a black picture, white where to redraw; null if nothing is painted.
  async png() {
    const { width, height } = this.canvas;
    const pixels = this.pen.getImageData(0, 0, width, height);
    let painted = false;
    for (let i = 0; i < pixels.data.length; i += 4) {
      const white = pixels.data[i + 3] > 127 ? 255 : 0;
      painted ||= white > 0;
      pixels.data.fill(white, i, i + 3);
      pixels.data[i + 3] = 255;
    }
    if (!painted) return null;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }
}
