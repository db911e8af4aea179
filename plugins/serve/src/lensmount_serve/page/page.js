// The page to try models on. One request for a picture; the slider only draws again what came back.

const $ = (id) => document.getElementById(id);
const LOWEST = 0.05; // asked of detectors, so that the slider has all there is to show
const COLORS = ["#e6194b", "#0a84ff", "#2fa84f", "#f58231", "#a24de0", "#00a3a3", "#d6336c", "#7a6a00", "#5f6bff", "#b35c00"];
const CLICKS = ["interactive-segmentation", "video-segmentation"];
const WORDS = ["open-vocabulary-detection", "embedding"];

const state = {
  tasks: new Map(), picture: null, blob: null, result: null, masks: [], points: [], cross: null, run: 0, stream: null,
};
const canvas = $("canvas");
const pen = canvas.getContext("2d");

// --- talking to the server ------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const headers = $("key").value ? { Authorization: `Bearer ${$("key").value}` } : {};
  const answer = await fetch(path, { ...options, headers });
  $("key-part").hidden = answer.status !== 401 && !$("key").value;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || body.message || `status ${answer.status}`);
  return body;
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

async function listModels() {
  try {
    const { models } = await ask("/v1/models");
    state.tasks = new Map(models.map((model) => [model.id, model.task]));
    $("models").replaceChildren(...models.map(({ id, task, loaded }) => {
      const option = document.createElement("option");
      option.value = id;
      option.label = loaded ? `${task}, loaded` : task;
      return option;
    }));
    const first = models.find((model) => model.loaded);
    if (first && !$("model").value) $("model").value = first.id;
    modelChanged();
    if (!state.picture) say("");
  } catch (error) {
    say(error.message, true);
  }
}

function task() {
  return state.tasks.get($("model").value.trim()) || "";
}

function modelChanged() {
  const doing = task();
  $("task").textContent = doing;
  $("words-part").hidden = !WORDS.includes(doing);
  $("clicks-part").hidden = !CLICKS.includes(doing);
  canvas.classList.toggle("clicks", CLICKS.includes(doing));
  state.result = null;
  state.points = [];
  state.masks = [];
  draw();
  run();
}

function optionsOf(doing) {
  const words = $("words").value.split(",").map((word) => word.trim()).filter(Boolean);
  if (CLICKS.includes(doing)) {
    return state.points.length && {
      points: state.points.map(({ x, y }) => [x, y]),
      point_labels: state.points.map(({ on }) => (on ? 1 : 0)),
    };
  }
  if (doing === "open-vocabulary-detection") return words.length && { classes: words, confidence: LOWEST };
  if (doing === "embedding") return words.length > 1 && { classes: words };
  if (doing === "classification") return {};
  return { confidence: LOWEST };
}

async function run() {
  const doing = task();
  if (!state.blob || !doing) return;
  const options = optionsOf(doing);
  if (!options) {
    if (doing === "embedding") say("Write two or more words with commas.");
    else say(CLICKS.includes(doing) ? "Click what you want." : "Write what to look for.");
    return;
  }
  const mine = ++state.run;
  const form = new FormData();
  form.set("image", state.blob, "picture");
  form.set("options", JSON.stringify(options));
  say("Running…");
  canvas.setAttribute("aria-busy", "true");
  try {
    const path = $("model").value.trim().split("/").map(encodeURIComponent).join("/");
    const answer = await ask(`/v1/predict/${path}`, { method: "POST", body: form });
    if (mine !== state.run) return;
    state.result = answer.result;
    state.masks = (answer.result.objects || []).map((object, index) => object.mask && maskOf(object.mask, colorOf(object, index)));
    say(`${(answer.seconds.run * 1000).toFixed(0)} ms in the model`);
    draw();
  } catch (error) {
    if (mine === state.run) say(error.message, true);
  } finally {
    if (mine === state.run) canvas.removeAttribute("aria-busy");
  }
}

// --- pictures -------------------------------------------------------------------------------------------------------

async function setPicture(blob) {
  try {
    state.picture = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    say("The browser cannot show this file.", true);
    return;
  }
  state.blob = blob;
  state.result = null;
  state.points = [];
  state.masks = [];
  state.cross = null;
  canvas.width = state.picture.width;
  canvas.height = state.picture.height;
  draw();
  await run();
}

async function example() {
  const answer = await fetch("/page/scene.jpg");
  await setPicture(await answer.blob());
}

async function camera() {
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say(`No camera: ${error.message}`, true);
    return;
  }
  $("video").srcObject = state.stream;
  await $("video").play();
  for (const id of ["video", "shoot"]) $(id).hidden = false;
  canvas.hidden = true;
  $("shoot").focus();
}

async function shoot() {
  const video = $("video");
  const still = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  still.getContext("2d").drawImage(video, 0, 0);
  for (const track of state.stream.getTracks()) track.stop();
  for (const id of ["video", "shoot"]) $(id).hidden = true;
  canvas.hidden = false;
  await setPicture(await still.convertToBlob({ type: "image/jpeg", quality: 0.92 }));
}

// --- drawing --------------------------------------------------------------------------------------------------------

function colorOf(object, index) {
  return COLORS[(object.class_id ?? index) % COLORS.length];
}

// COCO's text form of run lengths: five bits a character, differences to the run before the last.
function runsOf(counts) {
  if (Array.isArray(counts)) return counts;
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

function maskOf({ size: [height, width], counts }, color) {
  const made = new OffscreenCanvas(width, height);
  const brush = made.getContext("2d");
  const pixels = brush.createImageData(width, height);
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  let place = 0;
  runsOf(counts).forEach((length, index) => {
    for (let end = place + length; place < end; place++) {
      if (index % 2 === 0) continue;
      const at = 4 * ((place % height) * width + Math.floor(place / height)); // columns first
      pixels.data.set([red, green, blue, 120], at);
    }
  });
  brush.putImageData(pixels, 0, 0);
  return made;
}

function shown() {
  const objects = state.result?.objects || [];
  const lowest = Number($("confidence").value);
  const all = objects.map((object, index) => ({ object, index, score: object.confidence ?? object.score ?? 1 }));
  if (state.result?.type === "prompted-masks") {
    const best = all.reduce((top, item) => (!top || item.score > top.score ? item : top), null);
    return best ? [best] : [];
  }
  return all.filter(({ score }) => score >= lowest);
}

function draw() {
  const unit = Math.max(1, Math.round(Math.max(canvas.width, canvas.height) / 500));
  canvas.classList.toggle("empty", !state.picture);
  if (!state.picture) return;
  pen.drawImage(state.picture, 0, 0);
  const rows = shown();
  for (const { index } of rows) if (state.masks[index]) pen.drawImage(state.masks[index], 0, 0);
  for (const { object, index, score } of rows) drawObject(object, colorOf(object, index), score, unit);
  for (const { x, y, on } of state.points) drawMark(x, y, on ? "#2fa84f" : "#e6194b", unit, on);
  if (state.cross && document.activeElement === canvas) drawCross(state.cross, unit);
  tell(rows);
}

function drawObject(object, color, score, unit) {
  pen.lineWidth = 2 * unit;
  pen.strokeStyle = color;
  if (object.xywhr) {
    pen.beginPath();
    cornersOf(object.xywhr).forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.stroke();
  } else if (object.xyxy) {
    const [left, top, right, bottom] = object.xyxy;
    pen.strokeRect(left, top, right - left, bottom - top);
  }
  for (const [x, y, sure] of object.keypoints || []) {
    if (sure < 0.3) continue;
    pen.beginPath();
    pen.arc(x, y, 3 * unit, 0, 2 * Math.PI);
    pen.fillStyle = color;
    pen.fill();
  }
  if (!object.xyxy || !object.class_name) return;
  const text = `${object.class_name} ${score.toFixed(2)}`;
  pen.font = `600 ${11 * unit}px system-ui, sans-serif`;
  const wide = pen.measureText(text).width + 8 * unit;
  const [left, top] = object.xyxy;
  const x = Math.max(0, Math.min(left, canvas.width - wide));
  const y = top > 16 * unit ? top - 16 * unit : top;
  pen.fillStyle = color;
  pen.fillRect(x, y, wide, 16 * unit);
  pen.fillStyle = "#fff";
  pen.fillText(text, x + 4 * unit, y + 12 * unit);
}

function cornersOf([x, y, width, height, turn]) {
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([across, down]) => {
    const [dx, dy] = [(across * width) / 2, (down * height) / 2];
    return [x + dx * cos - dy * sin, y + dx * sin + dy * cos];
  });
}

function drawMark(x, y, color, unit, on) {
  pen.beginPath();
  pen.arc(x, y, 6 * unit, 0, 2 * Math.PI);
  pen.fillStyle = color;
  pen.fill();
  pen.lineWidth = 1.5 * unit;
  pen.strokeStyle = "#fff";
  pen.moveTo(x - 3 * unit, y);
  pen.lineTo(x + 3 * unit, y);
  if (on) {
    pen.moveTo(x, y - 3 * unit);
    pen.lineTo(x, y + 3 * unit);
  }
  pen.stroke();
}

function drawCross({ x, y }, unit) {
  for (const [color, width] of [["#000", 3], ["#fff", 1]]) {
    pen.lineWidth = width * unit;
    pen.strokeStyle = color;
    pen.beginPath();
    pen.moveTo(x - 12 * unit, y);
    pen.lineTo(x + 12 * unit, y);
    pen.moveTo(x, y - 12 * unit);
    pen.lineTo(x, y + 12 * unit);
    pen.stroke();
  }
}

function tell(rows) {
  const type = state.result?.type;
  let lines = rows.map(({ object, index, score }) => [object.class_name || "mask", score, colorOf(object, index)]);
  if (type === "classification") {
    const { probabilities, class_names: names } = state.result;
    lines = probabilities.map((score, index) => [names[index] || `class_${index}`, score, COLORS[index % COLORS.length]])
      .sort((a, b) => b[1] - a[1]).slice(0, 10);
  }
  $("found").hidden = !type;
  $("confidence-part").hidden = !state.result?.objects || type === "prompted-masks";
  $("count").textContent = `${lines.length} found`;
  $("rows").replaceChildren(...lines.map(([name, score, color]) => {
    const row = document.createElement("tr");
    const what = document.createElement("td");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = color;
    what.append(swatch, name);
    const number = document.createElement("td");
    number.textContent = score.toFixed(2);
    row.append(what, number);
    return row;
  }));
  canvas.dataset.found = type ? String(lines.length) : "";
  canvas.setAttribute("aria-label", type ? `Picture with ${lines.length} found` : "Picture");
}

// --- hands ----------------------------------------------------------------------------------------------------------

function mark(x, y, on) {
  if (!state.picture || !CLICKS.includes(task())) return;
  state.points.push({ x, y, on });
  draw();
  run();
}

function placeOf(event) {
  const box = canvas.getBoundingClientRect();
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  return [
    inside(((event.clientX - box.left) / box.width) * canvas.width, canvas.width),
    inside(((event.clientY - box.top) / box.height) * canvas.height, canvas.height),
  ];
}

canvas.addEventListener("click", (event) => mark(...placeOf(event), !event.shiftKey));
canvas.addEventListener("contextmenu", (event) => {
  if (!CLICKS.includes(task())) return;
  event.preventDefault();
  mark(...placeOf(event), false);
});
canvas.addEventListener("keydown", (event) => {
  if (!state.picture || !CLICKS.includes(task()) || event.ctrlKey || event.metaKey || event.altKey) return;
  state.cross ||= { x: canvas.width / 2, y: canvas.height / 2 };
  const step = Math.max(1, Math.round(Math.max(canvas.width, canvas.height) / (event.shiftKey ? 20 : 100)));
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (moves[event.key]) {
    const [across, down] = moves[event.key];
    state.cross.x = Math.min(Math.max(state.cross.x + across * step, 0), canvas.width);
    state.cross.y = Math.min(Math.max(state.cross.y + down * step, 0), canvas.height);
    draw();
  } else if (event.key === "Enter") mark(state.cross.x, state.cross.y, true);
  else if (event.key.toLowerCase() === "n") mark(state.cross.x, state.cross.y, false);
  else if (event.key === "Backspace") unmark(-1);
  else return;
  event.preventDefault();
});
for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, draw);

function unmark(count) {
  state.points = count < 0 ? state.points.slice(0, count) : [];
  state.run++;
  if (!state.points.length) {
    state.result = null;
    state.masks = [];
  }
  draw();
  run();
}

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    canvas.classList.toggle("dropping", kind === "dragover");
    const file = kind === "drop" && [...event.dataTransfer.files].find((item) => item.type.startsWith("image/"));
    if (file) setPicture(file);
    else if (kind === "drop") say("That is no picture.", true);
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
  if (file) setPicture(file);
});
$("file").addEventListener("change", () => $("file").files[0] && setPicture($("file").files[0]));
$("scene").addEventListener("click", example);
$("camera").addEventListener("click", camera);
$("shoot").addEventListener("click", shoot);
$("clear").addEventListener("click", () => unmark(0));
$("model").addEventListener("change", modelChanged);
$("confidence").addEventListener("input", () => {
  $("confidence-value").textContent = Number($("confidence").value).toFixed(2);
  draw();
});
$("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  if (state.tasks.size) run();
  else listModels();
});

canvas.classList.add("empty");
listModels();
