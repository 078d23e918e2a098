"use strict";
// The page of a run: the state is `view`, everything is drawn from it, and nothing is fetched.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const hasPositions = data.kind !== "none";
const isScore = data.kind === "scores";
const CLASS_MAP = "class map";
// Eight colours that people who are colour-blind can tell apart (Okabe and Ito), for class maps.
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7a7a7a"];

// ---- Bytes ----

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out.buffer;
}

// All 65,536 numbers of 16 bits: 1 sign, 5 exponent, 10 fraction.
const HALF = new Float32Array(65536).map((_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
});

function scoresOf(record) {
  if (!record.values) {
    const raw = bytes(record.scores);
    record.values = isScore ? new Float32Array(raw) : Float32Array.from(new Uint16Array(raw), (b) => HALF[b]);
    record.won = new Int32Array(bytes(record.winners));
  }
  return record.values;
}

const COLOURS = new Uint8Array(bytes(data.colours));

// ---- Where positions lie ----

const places = hasPositions ? data.positions : null;
const labels = places && places.kind === "segments" ? new Int32Array(bytes(places.labels)) : null;
const shape = !places ? [0, 0] : labels ? [1, places.groups.length] : [places.rows.length, places.cols.length];
const groupsOf = labels ? groupLabels() : null;

function groupLabels() {
  const found = new Map();
  places.groups.forEach((group, i) => group.forEach((label) => {
    if (!found.has(label)) found.set(label, []);
    found.get(label).push(i);
  }));
  return found;
}

function rectangle(position, record) {
  const [ph, pw] = places.patch;
  const top = places.rows[Math.floor(position / shape[1])], left = places.cols[position % shape[1]];
  return {
    top: Math.max(0, top), left: Math.max(0, left),
    bottom: Math.min(record.height, top + ph), right: Math.min(record.width, left + pw),
  };
}

function nearest(starts, extent, x) {
  let best = 0;
  for (let i = 1; i < starts.length; i++) {
    if (Math.abs(starts[i] + extent / 2 - x) < Math.abs(starts[best] + extent / 2 - x)) best = i;
  }
  return best;
}

function positionAt(record, x, y) {
  if (labels) {
    const label = labels[Math.min(record.height - 1, Math.floor(y)) * record.width + Math.min(record.width - 1, Math.floor(x))];
    const groups = groupsOf.get(label) || [];
    return groups.length ? groups[0] : null;
  }
  return nearest(places.rows, places.patch[0], y) * shape[1] + nearest(places.cols, places.patch[1], x);
}

// ---- Readings of the scores ----

const NAMES = data.classes;
const nameOf = (c) => (Object.hasOwn(NAMES, c) ? NAMES[c] : data.count === 1 ? (c ? "above" : "score") : `class ${c}`);
const logOdds = (l) => l - Math.log(Math.max(-Math.expm1(l), 1e-12));

// What `quantity` says of a log-probability, or of a plain score.
function reading(l, clean, quantity) {
  if (isScore) return quantity === "probability" ? l : clean - l;
  if (quantity === "probability") return Math.exp(l);
  return quantity === "drop" ? Math.exp(clean) - Math.exp(l) : logOdds(clean) - logOdds(l);
}

function scoreAt(record, position, slot) {
  return scoresOf(record)[position * record.kept.length + slot];
}

// The heatmap of a class: the mean over the patches that cover a pixel.
function occlusionMap(record, cls, quantity) {
  const slot = record.kept.indexOf(cls), key = `${cls} ${quantity}`;
  record.cache = record.cache || new Map();
  if (!record.cache.has(key)) {
    const sum = new Float32Array(record.width * record.height), times = new Float32Array(sum.length);
    const count = shape[0] * shape[1];
    const byGroup = labels ? new Float64Array(count) : null;
    for (let p = 0; p < count && slot >= 0; p++) {
      const value = reading(scoreAt(record, p, slot), record.base[slot], quantity);
      if (byGroup) byGroup[p] = value;
      else if (Number.isFinite(value)) addRectangle(sum, times, rectangle(p, record), record.width, value);
    }
    if (byGroup) labels.forEach((label, i) => (groupsOf.get(label) || []).forEach((g) => {
      if (Number.isFinite(byGroup[g])) { sum[i] += byGroup[g]; times[i] += 1; }
    }));
    record.cache.set(key, sum.map((v, i) => (times[i] ? v / times[i] : NaN)));
    if (record.cache.size > 12) record.cache.delete(record.cache.keys().next().value);
  }
  return record.cache.get(key);
}

function addRectangle(sum, times, r, width, value) {
  for (let y = r.top; y < r.bottom; y++) {
    for (let i = y * width + r.left, end = y * width + r.right; i < end; i++) { sum[i] += value; times[i] += 1; }
  }
}

function largest(values) {
  let most = 0;
  for (const v of values) if (Math.abs(v) > most && Number.isFinite(v)) most = Math.abs(v);
  return most;
}

// ---- State ----

const layers = data.methods.slice();
if (hasPositions && data.count !== 1) layers.splice(layers.indexOf(data.tab) + 1, 0, CLASS_MAP);
const view = { image: 0, cls: 0, layer: hasPositions ? data.tab : layers[0], at: null, pins: [], order: data.images.map((_, i) => i) };

const current = () => data.images[view.image];
const topClass = (record) => (record.kept ? record.kept[record.base.reduce((best, v, i) => (v > record.base[best] ? i : best), 0)] : 0);

function readFragment() {
  const asked = new URLSearchParams(location.hash.slice(1)), number = (name) => {
    const text = asked.get(name);
    return text !== null && /^\d+$/.test(text) ? Number(text) : null;
  };
  const image = number("image"), cls = number("class"), row = number("row"), col = number("col");
  view.image = image !== null && image < data.images.length ? image : view.image;
  const record = current();
  view.cls = cls !== null && record.kept && record.kept.includes(cls) ? cls : topClass(record);
  const inside = row !== null && col !== null && row < shape[0] && col < shape[1];
  view.pins = inside ? [row * shape[1] + col] : [];
  view.at = null;
}

function writeFragment() {
  const parts = [`image=${view.image}`];
  if (hasPositions) parts.push(`class=${view.cls}`);
  const p = view.pins.length ? view.pins[view.pins.length - 1] : null;
  if (p !== null) parts.push(`row=${Math.floor(p / shape[1])}`, `col=${p % shape[1]}`);
  try { history.replaceState(null, "", `#${parts.join("&")}`); } catch { /* a frame without an address */ }
}

// ---- Drawing ----

const canvas = $("canvas"), pen = canvas.getContext("2d", { willReadFrequently: true });
let pictures = {};  // decoded images by their data URI

function picture(src) {
  if (!pictures[src]) {
    const image = new Image();
    pictures[src] = { image, ready: false };
    image.onload = () => { pictures[src].ready = true; draw(); };
    image.src = src;
  }
  return pictures[src];
}

function keepPictures(record) {
  const wanted = new Set([record.src, record.fill, ...Object.values(record.maps).map((m) => m.src)]);
  for (const src of Object.keys(pictures)) if (!wanted.has(src)) delete pictures[src];
}

// The values (H, W) of the layer that is shown, as wide as `width`; null while its picture is decoded.
function layerValues(record) {
  if (view.layer === data.tab && hasPositions) {
    return { values: occlusionMap(record, view.cls, $("quantity").value), width: record.width, height: record.height };
  }
  const map = record.maps[view.layer];
  if (!map) return null;
  if (!map.values) {
    const held = picture(map.src);
    if (!held.ready) return null;
    const off = new OffscreenCanvas(map.width, map.height).getContext("2d");
    off.drawImage(held.image, 0, 0);
    const grey = off.getImageData(0, 0, map.width, map.height).data;
    map.values = new Float32Array(map.width * map.height)
      .map((_, i) => (grey[4 * i] ? ((grey[4 * i] - 128) / 127) * map.scale : NaN));
  }
  return { values: map.values, width: map.width, height: map.height };
}

function scaleOf(shown, record) {
  if ($("scale").value === "image") return largest(shown.values);
  if (view.layer !== data.tab || !hasPositions) return Math.max(...data.images.map((r) => (r.maps[view.layer] || { scale: 0 }).scale));
  const quantity = $("quantity").value;
  let most = 0;
  for (const other of data.images) {
    const slot = other.kept.indexOf(view.cls);
    for (let p = 0; p < shape[0] * shape[1] && slot >= 0; p++) {
      const v = Math.abs(reading(scoreAt(other, p, slot), other.base[slot], quantity));
      if (Number.isFinite(v) && v > most) most = v;
    }
  }
  return most;
}

// A strong value hides the photograph, a weak one leaves it: the colour map's pale middle is not used.
function colourOf(share, opacity) {
  const strength = Math.min(1, Math.abs(share)), side = share < 0 ? -1 : 1;
  const c = 3 * Math.round(127.5 + side * 127.5 * (0.55 + 0.45 * strength));
  return [COLOURS[c], COLOURS[c + 1], COLOURS[c + 2], 255 * opacity * strength ** 0.7];
}

function overlay(record, zoom) {
  if (view.layer === CLASS_MAP) return drawClasses(record, zoom);
  const shown = layerValues(record);
  if (!shown) return;
  const scale = scaleOf(shown, record);
  tellScale(scale);
  const pixels = new ImageData(shown.width, shown.height), opacity = $("opacity").value / 100;
  const least = ($("threshold").value / 100) * scale;
  shown.values.forEach((value, i) => {
    const known = Number.isFinite(value), share = scale && known ? value / scale : 0;
    const out = Math.abs(value) < least ? [0, 0, 0, 0] : colourOf(share, opacity);
    pixels.data.set(known ? out : [128, 128, 128, 128 * opacity], 4 * i);
  });
  paint(pixels, record, zoom, shown.width !== record.width || record.width > 128);
}

function paint(pixels, record, zoom, smooth) {
  const off = new OffscreenCanvas(pixels.width, pixels.height);
  off.getContext("2d").putImageData(pixels, 0, 0);
  pen.imageSmoothingEnabled = smooth;
  pen.drawImage(off, 0, 0, record.width * zoom, record.height * zoom);
}

function classColours(record) {
  scoresOf(record);
  const times = new Map();
  record.won.forEach((c) => { if (c >= 0) times.set(c, (times.get(c) || 0) + 1); });
  const ordered = [...times.entries()].sort((a, b) => b[1] - a[1]);
  return ordered.map(([c, n], i) => ({ cls: c, count: n, colour: PALETTE[Math.min(i, PALETTE.length - 1)] }));
}

function drawClasses(record, zoom) {
  const colours = new Map(classColours(record).map((e) => [e.cls, e.colour]));
  pen.globalAlpha = $("opacity").value / 100;
  for (let p = 0; p < shape[0] * shape[1]; p++) {
    const colour = colours.get(record.won[p]);
    if (!colour || labels) continue;
    // A position's cell reaches half-way to its neighbours.
    const [ph, pw] = places.patch, r = Math.floor(p / shape[1]), c = p % shape[1];
    const edge = (starts, i, extent, last) => {
      const centre = (k) => starts[k] + extent / 2;
      return [i ? (centre(i - 1) + centre(i)) / 2 : 0, i + 1 < starts.length ? (centre(i) + centre(i + 1)) / 2 : last];
    };
    const [top, bottom] = edge(places.rows, r, ph, record.height), [left, right] = edge(places.cols, c, pw, record.width);
    pen.fillStyle = colour;
    pen.fillRect(left * zoom, top * zoom, (right - left) * zoom, (bottom - top) * zoom);
  }
  if (labels) labels.forEach((label, i) => {
    const colour = colours.get(record.won[(groupsOf.get(label) || [])[0]]);
    if (colour) { pen.fillStyle = colour; pen.fillRect((i % record.width) * zoom, Math.floor(i / record.width) * zoom, zoom, zoom); }
  });
  pen.globalAlpha = 1;
}

// The patch as the network saw it, with its real fill where that is known.
function drawPatch(record, position, zoom, colour) {
  pen.lineWidth = 2;
  pen.strokeStyle = colour;
  if (labels) {
    const inside = new Set(places.groups[position]);
    pen.fillStyle = colour;
    pen.globalAlpha = 0.45;
    labels.forEach((label, i) => { if (inside.has(label)) pen.fillRect((i % record.width) * zoom, Math.floor(i / record.width) * zoom, zoom, zoom); });
    pen.globalAlpha = 1;
    return;
  }
  const r = rectangle(position, record), w = r.right - r.left, h = r.bottom - r.top;
  const box = [r.left * zoom, r.top * zoom, w * zoom, h * zoom];
  if (data.filled === "picture" && picture(record.fill).ready) {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture(record.fill).image, r.left, r.top, w, h, ...box);
  } else if (data.filled === "mean") {
    pen.fillStyle = meanColour(record, r);
    pen.fillRect(...box);
  }
  pen.strokeRect(box[0] + 1, box[1] + 1, box[2] - 2, box[3] - 2);
}

function meanColour(record, r) {
  const off = new OffscreenCanvas(record.width, record.height).getContext("2d");
  off.drawImage(picture(record.src).image, 0, 0);
  const pixels = off.getImageData(r.left, r.top, r.right - r.left, r.bottom - r.top).data, total = [0, 0, 0];
  for (let i = 0; i < pixels.length; i++) if (i % 4 < 3) total[i % 4] += pixels[i];
  return `rgb(${total.map((t) => Math.round((4 * t) / pixels.length)).join(",")})`;
}

function zoomOf(record) {
  return Math.max(1, Math.floor(Math.min(560 / record.width, 560 / record.height)));
}

let due = false;
function draw() {
  if (!due) { due = true; requestAnimationFrame(() => { due = false; drawNow(); }); }
}

function drawNow() {
  const record = current(), zoom = zoomOf(record), held = picture(record.src);
  if (record.fill) picture(record.fill);
  if (canvas.width !== record.width * zoom || canvas.height !== record.height * zoom) {
    canvas.width = record.width * zoom;
    canvas.height = record.height * zoom;
  }
  if (!held.ready) return;
  pen.imageSmoothingEnabled = record.width > 128;
  pen.drawImage(held.image, 0, 0, canvas.width, canvas.height);
  overlay(record, zoom);
  const shown = [...view.pins, ...(view.at === null ? [] : [view.at])];
  shown.forEach((p, i) => drawPatch(record, p, zoom, i < view.pins.length ? ["#ffd400", "#ff7f00"][i] : "#fff"));
  describe(record);
}

// ---- Words and bars ----

function element(tag, text, cls) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

const percent = (p) => `${(100 * p).toFixed(p > 0 && p < 0.001 ? 3 : 1)} %`;
const amount = (v) => (isScore ? v.toPrecision(3) : percent(Math.exp(v)));

function tellScale(scale) {
  const signed = view.layer !== data.tab || $("quantity").value !== "probability" || isScore;
  const quantity = view.layer === data.tab ? $("quantity").value : "";
  const text = quantity === "logodds" || isScore || !quantity ? scale.toPrecision(3) : percent(scale);
  $("low").textContent = signed ? `−${text}` : "0";
  $("high").textContent = `+${text}`.replace("+0", "0");
  const bar = $("bar").getContext("2d"), pixels = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) {
    pixels.data.set(colourOf(signed ? i / 127.5 - 1 : i / 255, 1), 4 * i);
  }
  bar.putImageData(pixels, 0, 0);
}

function where(position) {
  if (labels) return `segment ${position}`;
  return `row ${Math.floor(position / shape[1])}, column ${position % shape[1]}`;
}

function describe(record) {
  const flat = view.layer !== CLASS_MAP && layerValues(record);
  const dead = flat && largest(flat.values) === 0 ? " This map is zero everywhere." : "";
  const answer = record.kept && data.count !== 1 ? `: ${nameOf(topClass(record))}, ${amount(record.base[record.kept.indexOf(topClass(record))])}` : "";
  $("caption").textContent = record.name + answer + (dead && `.${dead}`);
  canvas.setAttribute("aria-label", `${record.name}, layer ${view.layer}`);
  const positions = [...view.pins, ...(view.at === null ? [] : [view.at])];
  const box = $("readings");
  box.replaceChildren();
  if (!hasPositions) return;
  const titles = view.pins.map((p, i) => `Kept ${"AB"[i]}`).concat(view.at === null ? [] : ["Under the pointer"]);
  positions.forEach((p, i) => box.append(readingOf(record, p, titles[i])));
  if (!positions.length) box.append(readingOf(record, null, "The clean image"));
  const last = positions[positions.length - 1];
  $("told").textContent = positions.length ? sentence(record, last) : "Point at the picture, or use the arrow keys.";
  if (view.layer === CLASS_MAP) box.append(legend(record));
}

function sentence(record, position) {
  const slot = record.kept.indexOf(view.cls);
  const covered = scoreAt(record, position, slot);
  if (slot < 0 || !Number.isFinite(covered)) return `${where(position)}: not computed`;
  const now = record.won[position], change = data.count > 1 && now !== topClass(record) ? `; the answer becomes ${nameOf(now)}` : "";
  return `${where(position)} covered: ${nameOf(view.cls)} ${amount(record.base[slot])} → ${amount(covered)}${change}`;
}

function readingOf(record, position, title) {
  const box = element("section", undefined, "reading"), head = element("h2", title);
  if (position !== null) head.append(element("small", where(position)));
  box.append(head);
  const covered = (slot) => (position === null ? NaN : scoreAt(record, position, slot));
  const strength = (slot) => Math.max(record.base[slot], Number.isFinite(covered(slot)) ? covered(slot) : -Infinity);
  const slots = record.kept.map((_, i) => i).sort((a, b) => strength(b) - strength(a)).slice(0, 5);
  const chosen = record.kept.indexOf(view.cls);
  if (chosen >= 0 && !slots.includes(chosen)) slots.push(chosen);
  const most = isScore ? Math.max(...slots.map((s) => Math.max(Math.abs(record.base[s]), Math.abs(covered(s) || 0)))) || 1 : 1;
  slots.forEach((slot) => box.append(barsOf(record, slot, covered(slot), most)));
  return box;
}

function barsOf(record, slot, covered, most) {
  const row = element("div", undefined, "row"), clean = record.base[slot], cls = record.kept[slot];
  row.classList.toggle("chosen", cls === view.cls);
  const name = element("span", nameOf(cls), "name"), bars = element("div", undefined, "bars");
  name.title = nameOf(cls);
  const bar = (value, kind) => {
    const made = element("div", undefined, kind);
    made.style.width = `${100 * Math.min(1, (isScore ? Math.abs(value) : Math.exp(value)) / most)}%`;
    bars.append(made);
  };
  bar(clean, "clean");
  const numbers = element("span", amount(clean), "numbers");
  if (Number.isFinite(covered)) {
    bar(covered, "covered");
    const change = isScore ? covered - clean : Math.exp(covered) - Math.exp(clean);
    const sign = change < 0 ? "−" : "+", size = Math.abs(change);
    numbers.textContent = `${amount(covered)} `;
    numbers.append(element("span", `${sign}${isScore ? size.toPrecision(2) : percent(size).replace(" %", "")}`, change < 0 ? "down" : "up"));
  }
  row.append(name, bars, numbers);
  return row;
}

function legend(record) {
  const box = element("div");
  box.id = "legend";
  classColours(record).forEach((entry, i) => {
    if (i >= PALETTE.length) return;
    const item = element("span"), mark = element("i");
    mark.style.background = entry.colour;
    item.append(mark, `${i === PALETTE.length - 1 ? "others" : nameOf(entry.cls)} (${entry.count})`);
    box.append(item);
  });
  return box;
}

// ---- Choices ----

function show() {
  keepPictures(current());
  document.querySelectorAll("#tabs button").forEach((b) => b.setAttribute("aria-selected", String(b.dataset.layer === view.layer)));
  document.querySelectorAll("#thumbnails button").forEach((b) => b.setAttribute("aria-current", String(Number(b.dataset.image) === view.image)));
  $("class").value = hasPositions ? nameOf(view.cls) : "";
  const options = (current().kept || []).map((c) => { const o = element("option"); o.value = nameOf(c); return o; });
  $("classes").replaceChildren(...options);
  writeFragment();
  draw();
}

function choose(image) {
  const followed = view.cls === topClass(current());
  view.image = image;
  view.pins = [];
  view.at = null;
  const kept = current().kept || [];
  if (followed || !kept.includes(view.cls)) view.cls = topClass(current());
  show();
}

function chooseClass(text) {
  const wanted = text.trim().toLowerCase(), kept = current().kept || [];
  if (!wanted) return;
  const exact = kept.find((c) => nameOf(c).toLowerCase() === wanted || String(c) === wanted);
  const start = kept.find((c) => nameOf(c).toLowerCase().startsWith(wanted));
  const found = exact ?? start ?? kept.find((c) => nameOf(c).toLowerCase().includes(wanted));
  if (found !== undefined) view.cls = found;
  show();
}

function step(rows, cols) {
  if (!hasPositions) return;
  const from = view.at ?? view.pins[view.pins.length - 1];
  if (from === undefined) view.at = Math.floor(shape[0] / 2) * shape[1] + Math.floor(shape[1] / 2);
  else {
    const row = Math.min(shape[0] - 1, Math.max(0, Math.floor(from / shape[1]) + rows));
    view.at = row * shape[1] + Math.min(shape[1] - 1, Math.max(0, (from % shape[1]) + cols));
  }
  draw();
}

function pin() {
  if (view.at === null) return;
  view.pins = view.pins.includes(view.at) ? view.pins.filter((p) => p !== view.at) : [...view.pins, view.at].slice(-2);
  writeFragment();
  draw();
}

function neighbour(by) {
  const at = view.order.indexOf(view.image);
  choose(view.order[Math.min(view.order.length - 1, Math.max(0, at + by))]);
}

async function copyPicture() {
  drawNow();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    $("copy").textContent = "Copied";
  } catch {  // a browser that does not let a file write to the clipboard
    const link = element("a");
    link.href = URL.createObjectURL(blob);
    link.download = "jaxviz.png";
    link.click();
    URL.revokeObjectURL(link.href);
    $("copy").textContent = "Saved";
  }
  setTimeout(() => { $("copy").textContent = "Copy as PNG"; }, 1500);
}

// ---- The page ----

function makeThumbnails() {
  $("thumbnails").replaceChildren(...view.order.map((i) => {
    const record = data.images[i], item = element("li"), button = element("button"), thumb = new Image();
    thumb.src = record.src;
    thumb.alt = "";
    button.type = "button";
    button.dataset.image = i;
    button.append(thumb, element("span", record.name));
    button.onclick = () => choose(i);
    item.append(button);
    return item;
  }));
}

function sortImages() {
  const by = $("sort").value;
  view.order = data.images.map((_, i) => i);
  if (by !== "order") view.order.sort((a, b) => data.images[b].surprise[by] - data.images[a].surprise[by]);
  makeThumbnails();
  choose(view.order[0]);
}

function makeTabs() {
  $("tabs").replaceChildren(...layers.map((name) => {
    const tab = element("button", name);
    tab.type = "button";
    tab.setAttribute("role", "tab");
    tab.dataset.layer = name;
    tab.onclick = () => { view.layer = name; show(); };
    return tab;
  }));
}

function pointer(event) {
  const box = canvas.getBoundingClientRect(), record = current();
  const x = ((event.clientX - box.left) / box.width) * record.width, y = ((event.clientY - box.top) / box.height) * record.height;
  return positionAt(record, x, y);
}

const KEYS = {
  ArrowUp: () => step(-1, 0), ArrowDown: () => step(1, 0), ArrowLeft: () => step(0, -1), ArrowRight: () => step(0, 1),
  Enter: pin, " ": pin, PageUp: () => neighbour(-1), PageDown: () => neighbour(1),
  Escape: () => { view.pins = []; view.at = null; writeFragment(); draw(); },
};

function listen() {
  if (hasPositions) {
    canvas.addEventListener("pointermove", (e) => { view.at = pointer(e); draw(); });
    canvas.addEventListener("pointerleave", () => { view.at = null; draw(); });
    canvas.addEventListener("click", (e) => { view.at = pointer(e); pin(); });
  }
  document.addEventListener("keydown", (e) => {
    const typing = ["INPUT", "SELECT"].includes(e.target.tagName), button = e.target.tagName === "BUTTON";
    if (e.key === "/" && !typing && hasPositions) { e.preventDefault(); $("class").focus(); $("class").select(); return; }
    if (typing || e.ctrlKey || e.metaKey || e.altKey || (button && [" ", "Enter"].includes(e.key))) return;
    if (/^[1-9]$/.test(e.key) && layers[e.key - 1]) { view.layer = layers[e.key - 1]; show(); }
    if (Object.hasOwn(KEYS, e.key)) { e.preventDefault(); KEYS[e.key](); }
  });
  $("class").addEventListener("change", (e) => chooseClass(e.target.value));
  $("class").addEventListener("focus", (e) => e.target.select());
  ["quantity", "opacity", "threshold", "scale"].forEach((id) => $(id).addEventListener("input", draw));
  $("sort").addEventListener("change", sortImages);
  $("copy").addEventListener("click", copyPicture);
  $("help-button").addEventListener("click", () => {
    $("help").hidden = !$("help").hidden;
    $("help-button").setAttribute("aria-expanded", String(!$("help").hidden));
  });
  window.addEventListener("hashchange", () => { readFragment(); show(); });
}

function begin() {
  document.body.classList.toggle("one", data.images.length === 1);
  $("version").textContent = data.version;
  const said = { logits: "Probabilities are the softmax of the network's scores.", scores: "Scores are shown as the network gives them." };
  const fill = data.fill ? ` Patches are filled with: ${data.fill}${data.filled ? "" : " (not drawn here)"}.` : "";
  $("note").textContent = (said[data.kind] || "") + (hasPositions ? fill : "");
  if (!hasPositions) ["class-label", "quantity-label"].forEach((id) => { $(id).hidden = true; });
  if (isScore) $("quantity").querySelector("[value=logodds]").remove();
  if (isScore) $("quantity").querySelector("[value=probability]").textContent = "score";
  if (data.methods.length < 2) $("sort").querySelector("[value=disagreement]").remove();
  makeTabs();
  makeThumbnails();
  readFragment();
  listen();
  show();
}

begin();
