// Building blocks of the figures: elements, formatted numbers, scales, group styles, the tooltip, files.

const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  return dress(made, attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return dress(made, attributes, children);
}

function dress(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) made.append(child);
  return made;
}

// A name that breaks at its underscores and dots, if it has to.
const breakable = (name) => name.split(/(?<=[_.,=])/).flatMap((part, place) => (place ? [element("wbr"), part] : [part]));

const DASH = "–";
// A minus sign before a number, in a text made elsewhere.
const minus = (text) => text.replace(/(?<![\w])-(?=\d)/g, "−");
const fixed = (value, digits = 2) => (value === null || value === undefined ? DASH : value.toFixed(digits).replace("-", "−"));
const percent = (value, digits = 2) => (value === null || value === undefined ? DASH : fixed(100 * value, digits));
const signed = (value, digits = 2) => (value > 0 ? "+" : "") + fixed(value, digits);
const grouped = (value) => (value === null || value === undefined ? DASH : Math.round(value).toLocaleString("en-US"));
const spread = (sample, factor = 1, digits = 2) =>
  !sample ? DASH : fixed(factor * sample.mean, digits) + (sample.sd === null ? "" : " ± " + fixed(factor * sample.sd, digits));
const range = (low, high, factor = 1, show = fixed) => (low === null ? DASH : `[${show(factor * low)}, ${show(factor * high)}]`);

function short(value) {
  // A number for a tooltip: three digits.
  if (value === null || value === undefined) return DASH;
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

const amount = (value) => (value >= 1000 ? grouped(value) : short(value));

// --- scales ---

// Numbers on an axis, with as many decimals as its step needs.
function tickText(step) {
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return (value) => (Math.abs(value) >= 1e6 || digits > 4 ? value.toExponential(2).replaceAll("-", "−") : fixed(value, digits));
}

function linear([from, to], [start, end]) {
  const place = (value) => start + ((value - from) / (to - from || 1)) * (end - start);
  place.back = (pixel) => from + ((pixel - start) / (end - start || 1)) * (to - from);
  place.ticks = (count) => {
    const step = niceStep(from, to, count);
    place.text = tickText(step);
    const [first, last] = [Math.ceil(from / step - 1e-9), Math.floor(to / step + 1e-9)];
    return Array.from({ length: last - first + 1 }, (_, place) => Number(((first + place) * step).toPrecision(12)));
  };
  return place;
}

function logarithmic([from, to], [start, end]) {
  const inner = linear([Math.log10(from), Math.log10(to)], [start, end]);
  const place = (value) => inner(Math.log10(value));
  place.ticks = () => {
    const found = [];
    for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++)
      for (const step of to / from > 100 ? [1] : to / from > 12 ? [1, 2, 5] : [1, 2, 3, 4, 5, 7]) {
        const tick = step * 10 ** power;
        if (tick >= from * 0.999 && tick <= to * 1.001) found.push(tick);
      }
    return found;
  };
  place.text = short;
  return place;
}

function niceStep(from, to, count) {
  const rough = (to - from) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
}

function extent(values, margin = 0.05) {
  const there = values.filter((value) => value !== null && value !== undefined && Number.isFinite(value));
  if (!there.length) return [0, 1];
  let [low, high] = [Math.min(...there), Math.max(...there)];
  const room = (high - low) * margin || Math.abs(high) * 0.05 || 0.5;
  return [low - room, high + room];
}

// --- styles: one colour for each method; dashes distinguish several groups of one method ---

const COLOURS = 7;
const DASHES = ["", "7 4", "2 3", "9 3 2 3", "4 2", "1 2"];
const MARKS = ["circle", "square", "triangle", "diamond", "cross", "down"];
const labels = [...new Set(data.groups.map((group) => group.label))];
const alone = labels.length === data.groups.length || labels.length === 1;

const styles = data.groups.map((group, index) => {
  const own = alone ? index : labels.indexOf(group.label);
  const inner = alone ? own + Math.floor(own / COLOURS) : data.groups.filter((one, place) => one.label === group.label && place < index).length;
  return { colour: `var(--c${own % COLOURS})`, dash: DASHES[inner % DASHES.length], mark: MARKS[(alone ? inner : own) % MARKS.length] };
});

const visible = () => data.groups.map((_, index) => index).filter((index) => !hidden.has(index));

function mark(kind, x, y, size, attributes) {
  const r = size;
  const shapes = {
    square: `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    triangle: `M${x} ${y - 1.2 * r}l${1.2 * r} ${2.1 * r}h${-2.4 * r}z`,
    down: `M${x} ${y + 1.2 * r}l${1.2 * r} ${-2.1 * r}h${-2.4 * r}z`,
    diamond: `M${x} ${y - 1.35 * r}L${x + 1.35 * r} ${y}L${x} ${y + 1.35 * r}L${x - 1.35 * r} ${y}z`,
    cross: `M${x - r} ${y - 0.35 * r}h${0.65 * r}v${-0.65 * r}h${0.7 * r}v${0.65 * r}h${0.65 * r}v${0.7 * r}h${-0.65 * r}v${0.65 * r}h${-0.7 * r}v${-0.65 * r}h${-0.65 * r}z`,
  };
  return kind === "circle" ? svg("circle", { cx: x, cy: y, r, ...attributes }) : svg("path", { d: shapes[kind], ...attributes });
}

function key(index) {
  const { colour, dash, mark: kind } = styles[index];
  return svg(
    "svg",
    { class: "key", width: 30, height: 12, viewBox: "0 0 30 12", "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 29, y1: 6, y2: 6, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }),
    mark(kind, 15, 6, 3.6, { fill: colour }),
  );
}

// --- the tooltip ---

const tip = document.getElementById("tip");

function showTip(event, title, rows) {
  tip.replaceChildren(
    element("b", {}, title),
    ...rows.map(([index, text, value]) => element("div", { class: "row" }, index === null ? null : key(index), text, element("span", {}, value))),
  );
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = event.clientX + 16 + box.width > innerWidth - 6 ? event.clientX - box.width - 16 : event.clientX + 16;
  tip.style.left = `${Math.max(6, left)}px`;
  tip.style.top = `${Math.max(6, Math.min(event.clientY + 14, innerHeight - box.height - 6))}px`;
}

const hideTip = () => (tip.hidden = true);

function pointed(made, title, rows) {
  made.addEventListener("pointermove", (event) => showTip(event, title, rows()));
  made.addEventListener("pointerleave", hideTip);
  return made;
}

// --- files and the clipboard ---

function csvText(rows) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet would take a name with such a beginning for a formula; numbers stay as they are.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !/^[-+.\d][-+.\de ]*$/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

function download(name, text, type = "text/csv") {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page opened from a file may have no clipboard; copying from an invisible text field still works.
    const field = element("textarea", { style: "position:fixed;opacity:0" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label), 1200);
}
