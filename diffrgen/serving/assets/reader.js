// The report once it is there: sentences to correct, the image to look at closely, files to keep. It asks this server alone,
// puts whatever a visitor types on the page as text, and keeps nothing.
const MOST_CHARACTERS = 2000;
const NOTICE = "Generated draft. Research use only, not for diagnosis.";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

const tool = (label, name, press) => make("button", { type: "button", class: "tool", "aria-label": name, title: name, onclick: press }, label);

// Sentences

class Sentence {
  constructor(item, number, viewer, probability) {
    this.item = item;
    this.number = number;
    this.probability = probability;
    this.confidence = item.querySelector(".confidence");
    // Notes on the generated sentence: its confidence, and the retrieved reports that contain it.
    this.remarks = [...item.querySelectorAll("small")];
    this.sure = [...item.classList].find((name) => name.startsWith("sure-"));
    this.display = item.querySelector(".sentence-text");
    this.written = this.text = this.display.textContent;
    this.state = "";
    this.note = make("small", { class: "as-written", hidden: true });
    this.word = make("small", { class: "state-word", "aria-live": "polite" });
    this.accept = tool("Accept", `Accept sentence ${number}`, () => this.set("accepted"));
    this.strike = tool("Strike", `Strike sentence ${number}`, () => this.set("struck"));
    this.controls = make("div", { class: "controls", role: "group", "aria-label": `Sentence ${number}` },
      tool("Edit", `Edit sentence ${number}`, () => this.edit()), this.accept, this.strike,
      tool("Look", `Show where the decoder looked for sentence ${number}`, () => viewer.look(number - 1)));
    this.display.addEventListener("click", () => this.edit());
    item.append(this.note, this.word, this.controls);
    this.show();
  }

  get section() { return this.item.dataset.section; }

  get kept() { return this.state !== "struck"; }

  get edited() { return this.text !== this.written; }

  // The sentence as it is sent for a file in a hospital format.
  get content() {
    const [generated, probability] = this.edited ? [this.written, null] : [null, this.probability];
    return { text: this.text, generated, probability, section: this.section ?? null };
  }

  set(state) {
    this.state = this.state === state ? "" : state;
    this.show();
  }

  show() {
    const edited = this.edited;
    this.display.textContent = this.text;
    this.note.hidden = !edited;
    this.note.textContent = edited ? `As generated: ${this.written}` : "";
    this.remarks.forEach((each) => { each.hidden = edited; });
    if (this.sure) this.item.classList.toggle(this.sure, !edited);
    const words = [edited ? "edited" : "", this.state].filter(Boolean);
    this.word.textContent = words.join(", ");
    this.item.classList.toggle("struck", this.state === "struck");
    this.item.classList.toggle("accepted", this.state === "accepted");
    this.accept.setAttribute("aria-pressed", String(this.state === "accepted"));
    this.strike.setAttribute("aria-pressed", String(this.state === "struck"));
  }

  edit() {
    if (this.item.querySelector("textarea")) return;
    const problem = make("small", { class: "edit-problem", role: "alert" });
    const area = make("textarea", { rows: 2, "aria-label": `Sentence ${this.number}, as edited` });
    area.value = this.text;
    const done = () => { form.remove(); this.display.hidden = this.controls.hidden = false; this.controls.firstChild.focus(); };
    const save = () => {
      const text = area.value.trim().replace(/\s+/g, " ");
      if (text.length > MOST_CHARACTERS) {
        problem.textContent = `An edit may have at most ${MOST_CHARACTERS} characters; this one has ${text.length}.`;
        return;
      }
      if (!text) { problem.textContent = "A sentence cannot be empty; strike it instead."; return; }
      this.text = text;
      this.show();
      done();
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); save(); }
      if (event.key === "Escape") { event.preventDefault(); done(); }
    });
    const form = make("div", { class: "editing" }, area, tool("Save", `Save sentence ${this.number}`, save), tool("Cancel", "Cancel", done), problem);
    this.display.hidden = this.controls.hidden = true;
    this.display.after(form);
    area.focus();
  }
}

// The image

class Viewer {
  constructor(figure, readings) {
    this.images = [...figure.querySelectorAll("img")];
    this.readings = readings;
    this.shown = 0;
    this.sentence = null;
    this.canvas = make("canvas", { tabindex: 0, role: "img", "aria-describedby": "viewer-keys" });
    this.window = make("input", { type: "range", min: 10, max: 510, value: 255, "aria-label": "Window: width of the greys" });
    this.level = make("input", { type: "range", min: 0, max: 255, value: 127, "aria-label": "Level: middle of the greys" });
    this.caption = make("p", { class: "quiet", "aria-live": "polite" });
    const views = this.images.length < 2 ? [] : [tool("Other view", "Show the other view", () => this.turn())];
    const bar = make("div", { class: "viewer-tools", role: "group", "aria-label": "Image" },
      tool("−", "Zoom out", () => this.zoom(1 / 1.25)), tool("+", "Zoom in", () => this.zoom(1.25)),
      tool("Reset", "Reset the image", () => this.reset()), tool("Attention off", "Hide the attention", () => this.look(null)), ...views,
      make("label", {}, "Window", this.window), make("label", {}, "Level", this.level));
    const keys = make("p", { class: "quiet", id: "viewer-keys" }, "Wheel or + and −: zoom. Drag or arrows: move. Shift and drag, or W and S, A and D: window and level. 0: reset.");
    this.place = make("div", { class: "viewer" }, this.canvas, bar, this.caption, keys);
    this.images.forEach((image) => { image.hidden = true; });
    figure.prepend(this.place);
    for (const input of [this.window, this.level]) input.addEventListener("input", () => this.draw());
    this.listen();
    Promise.all(this.images.map((image) => image.decode().catch(() => {}))).then(() => this.reset());
  }

  get image() { return this.images[this.shown]; }

  reset() {
    Object.assign(this, { scale: 1, x: 0, y: 0 });
    this.window.value = 255;
    this.level.value = 127;
    this.draw();
  }

  turn() {
    this.shown = (this.shown + 1) % this.images.length;
    this.draw();
  }

  look(sentence) {
    this.sentence = sentence;
    this.caption.textContent = sentence === null ? "" : `Attention for sentence ${sentence + 1}: it shows where the decoder looked, not why.`;
    this.draw();
    if (sentence !== null) this.canvas.scrollIntoView({ block: "nearest" });
  }

  // at: the point of the canvas, in its pixels, that stays where it is.
  zoom(factor, at = [this.canvas.width / 2, this.canvas.height / 2]) {
    const scale = Math.min(16, Math.max(1, this.scale * factor));
    this.x = at[0] - (at[0] - this.x) * (scale / this.scale);
    this.y = at[1] - (at[1] - this.y) * (scale / this.scale);
    this.scale = scale;
    this.draw();
  }

  move(x, y) {
    this.x += x;
    this.y += y;
    this.draw();
  }

  contrast(width, middle) {
    this.window.value = Number(this.window.value) + width;
    this.level.value = Number(this.level.value) + middle;
    this.draw();
  }

  draw() {
    const { image, canvas } = this;
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const [window, level] = [Number(this.window.value), Number(this.level.value)];
    canvas.setAttribute("aria-label", `${image.alt}. Zoom ${Math.round(100 * this.scale)} %, window ${window}, level ${level}`);
    this.x = Math.min(0, Math.max(width * (1 - this.scale), this.x));
    this.y = Math.min(0, Math.max(height * (1 - this.scale), this.y));
    const still = new OffscreenCanvas(width, height);
    const pencil = still.getContext("2d");
    pencil.drawImage(image, 0, 0);
    const pixels = pencil.getImageData(0, 0, width, height);
    for (let place = 0; place < pixels.data.length; place += 4) {
      const grey = Math.round(255 * ((pixels.data[place] - level) / window + 0.5));
      pixels.data[place] = pixels.data[place + 1] = pixels.data[place + 2] = grey;
    }
    pencil.putImageData(pixels, 0, 0);
    if (this.sentence !== null) this.warm(pencil, width, height);
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(this.scale, 0, 0, this.scale, this.x, this.y);
    context.drawImage(still, 0, 0);
  }

  // Warm where a patch got more than an even share, full at four even shares, as in the pictures below.
  warm(pencil, width, height) {
    const views = this.readings[this.sentence].heat;
    const even = 1 / views.flat(2).length;
    const rows = views[this.shown];
    rows.forEach((row, down) => row.forEach((heat, across) => {
      const share = Math.min(1, Math.max(0, (heat - even) / (3 * even)));
      pencil.fillStyle = `rgba(255, 150, 30, ${0.65 * share})`;
      const [w, h] = [width / row.length, height / rows.length];
      pencil.fillRect(across * w, down * h, w, h);
    }));
  }

  listen() {
    const { canvas } = this;
    const factor = () => canvas.width / canvas.clientWidth;
    const at = (event) => [event.offsetX * factor(), event.offsetY * factor()];
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, at(event));
    }, { passive: false });
    const fingers = new Map();
    const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    canvas.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, at(event)); canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      const gap = fingers.size === 2 ? spread() : 0;
      fingers.set(event.pointerId, now);
      if (fingers.size === 2) this.zoom(spread() / Math.max(gap, 1), now);
      else if (event.shiftKey) this.contrast(now[0] - before[0], now[1] - before[1]);
      else this.move(now[0] - before[0], now[1] - before[1]);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
    const keys = {
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(1 / 1.25), 0: () => this.reset(),
      ArrowLeft: () => this.move(20, 0), ArrowRight: () => this.move(-20, 0), ArrowUp: () => this.move(0, 20), ArrowDown: () => this.move(0, -20),
      w: () => this.contrast(15, 0), s: () => this.contrast(-15, 0), a: () => this.contrast(0, -8), d: () => this.contrast(0, 8),
    };
    canvas.addEventListener("keydown", (event) => {
      const press = event.ctrlKey || event.metaKey ? undefined : keys[event.key] || keys[event.key.toLowerCase()];
      if (press) { event.preventDefault(); press(); }
    });
  }
}

// Files

function keep(content, type, name) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// The page to keep is made here of the report that is shown, so that no copy of it stays on the server.
function wholePage(article) {
  const copy = article.cloneNode(true);
  copy.querySelectorAll(".controls, .viewer, .editing, small[hidden]").forEach((each) => each.remove());
  copy.querySelectorAll("img[hidden], .sentence-text[hidden]").forEach((each) => { each.hidden = false; });
  return `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"><title>Chest X-ray report</title></head>
<body style="margin: 0">${copy.outerHTML}</body>
</html>
`;
}

// Notes beside the sentences of a file: which are edited, struck or doubtful, and the findings not mentioned.
function remarks(article, sentences) {
  const kept = sentences.filter((each) => each.kept);
  const [edited, struck] = [kept.filter((each) => each.edited).length, sentences.length - kept.length];
  const lines = edited || struck ? [`Edited by an unnamed reader: of ${sentences.length} generated sentences ${edited} changed, ${struck} removed.`] : [];
  kept.forEach((each, place) => {
    if (each.edited) lines.push(`Sentence ${place + 1}, as generated: ${each.written}`);
    else if (each.probability !== null) lines.push(`Sentence ${place + 1}: ${each.confidence.textContent}`);
  });
  const missing = article.querySelector(".not-mentioned");
  return missing ? [...lines, missing.textContent] : lines;
}

async function exported(format, sentences, files, missing) {
  if (!files.length) throw new Error("This format requires the DICOM image (CR, DX or RG) of the report; this report has another image.");
  const form = new FormData();
  files.forEach((file) => form.append("images", file, "image.dcm"));
  const kept = sentences.filter((each) => each.kept);
  const report = { format, sentences: kept.map((each) => each.content), struck: sentences.length - kept.length, not_mentioned: missing };
  form.append("report", JSON.stringify(report));
  const answer = await fetch("exports", { method: "POST", body: form });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.blob();
}

async function download(kind, article, sentences, files, missing) {
  const name = "chest-xray-report";
  if (kind === "text") {
    const blocks = [NOTICE, sentences.filter((each) => each.kept).map((each) => each.text).join("\n"), remarks(article, sentences).join("\n")];
    keep(`${blocks.filter(Boolean).join("\n\n")}\n`, "text/plain", `${name}.txt`);
  } else if (kind === "page") keep(wholePage(article), "text/html", `${name}.html`);
  else if (kind === "fhir") keep(await exported(kind, sentences, files, missing), "application/fhir+json", `${name}.json`);
  else keep(await exported(kind, sentences, files, missing), "application/dicom", `${name}.dcm`);
}

// page.js signals a new report and its files.
document.addEventListener("diffrgen-report", (event) => {
  const result = document.querySelector("#answer .result");
  const article = result.querySelector("article");
  const readings = JSON.parse(result.dataset.reading);
  const viewer = new Viewer(article.querySelector("section.report figure"), readings);
  const items = [...article.querySelectorAll(".sentences li")].filter((item) => item.querySelector(".sentence-text"));
  const sentences = items.map((item, place) => new Sentence(item, place + 1, viewer, readings[place].probability));
  const missing = JSON.parse(result.dataset.notMentioned);
  const problem = result.querySelector(".export-problem");
  result.querySelectorAll("[data-download]").forEach((button) => button.addEventListener("click", async () => {
    problem.textContent = "";
    try {
      await download(button.dataset.download, article, sentences, event.detail.files, missing);
    } catch (error) {
      problem.textContent = error instanceof TypeError ? "The service cannot be reached." : error.message;
    }
  }));
});
