// A figure as SVG or PDF: what the page shows of it (charts, titles, legend), as shapes and text in light colours.

const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });

// A CSS colour on white paper as [r, g, b]; null for none.
function ink(css, opacity = 1) {
  if (!css || css === "none") return null;
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = "#000";
  pen.fillStyle = css;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  const share = (a / 255) * opacity;
  return share === 0 ? null : [r, g, b].map((part) => Math.round(255 - (255 - part) * share));
}

// The outline of an SVG element as absolute M, L, C and Z.
function outline(node) {
  const at = (name) => Number(node.getAttribute(name) ?? 0);
  const points = () => (node.getAttribute("points") ?? "").trim().split(/[\s,]+/).map(Number);
  const through = (values, close) => [...values.flatMap((_, i) => (i % 2 ? [] : [[i ? "L" : "M", values[i], values[i + 1]]])), ...(close ? [["Z"]] : [])];
  switch (node.tagName) {
    case "line": return [["M", at("x1"), at("y1")], ["L", at("x2"), at("y2")]];
    case "polyline": return through(points());
    case "polygon": return through(points(), true);
    case "rect": {
      const [x, y, w, h] = ["x", "y", "width", "height"].map(at);
      return through([x, y, x + w, y, x + w, y + h, x, y + h], true);
    }
    case "circle": {
      const [x, y, r] = ["cx", "cy", "r"].map(at);
      const k = 0.5523 * r;
      return [["M", x + r, y], ["C", x + r, y + k, x + k, y + r, x, y + r], ["C", x - k, y + r, x - r, y + k, x - r, y], ["C", x - r, y - k, x - k, y - r, x, y - r], ["C", x + k, y - r, x + r, y - k, x + r, y], ["Z"]];
    }
    case "path": return walked(node.getAttribute("d"));
    default: return [];
  }
}

function walked(d) {
  const made = [];
  let [x, y] = [0, 0];
  for (const [, op, rest] of d.matchAll(/([MLHVZmlhvz])([^MLHVZmlhvz]*)/g)) {
    const values = rest.trim().split(/[\s,]+|(?<=\d)(?=-)/).filter(Boolean).map(Number);
    if (op.toUpperCase() === "Z") made.push(["Z"]);
    else if (op === "h" || op === "v") made.push(["L", op === "h" ? (x += values[0]) : x, op === "v" ? (y += values[0]) : y]);
    else
      for (let i = 0; i < values.length; i += 2) {
        [x, y] = op === op.toLowerCase() ? [x + values[i], y + values[i + 1]] : [values[i], values[i + 1]];
        made.push([op.toUpperCase() === "M" && !i ? "M" : "L", x, y]);
      }
  }
  return made;
}

// Everything visible in a host: {width, height, shapes: [{d, fill, stroke, width, dash} | {text, x, y, anchor, size, bold, fill}]}.
function drawing(host) {
  const chosen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  const frame = host.getBoundingClientRect();
  const shapes = [];
  for (const picture of host.querySelectorAll("svg")) {
    const box = picture.getBoundingClientRect();
    if (!box.width) continue;
    const view = picture.viewBox.baseVal;
    const scale = box.width / (view.width || box.width);
    const place = (x, y) => [box.left - frame.left + x * scale, box.top - frame.top + y * scale];
    for (const node of picture.querySelectorAll("line, polyline, polygon, rect, circle, path, text")) {
      const style = getComputedStyle(node);
      if (style.visibility === "hidden" || style.display === "none" || style.fill === "transparent") continue;
      const fill = ink(style.fill, Number(style.fillOpacity) * Number(style.opacity));
      if (node.tagName === "text") {
        const [x, y] = place(Number(node.getAttribute("x")), Number(node.getAttribute("y")));
        shapes.push({ text: node.textContent, x, y, anchor: style.textAnchor, size: parseFloat(style.fontSize) * scale, bold: false, fill });
        continue;
      }
      const d = outline(node).map(([op, ...values]) => [op, ...values.flatMap((_, i) => (i % 2 ? [] : place(values[i], values[i + 1])))]);
      const dash = style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(/[\s,]+/).map((part) => parseFloat(part) * scale);
      const stroke = ink(style.stroke, Number(style.strokeOpacity) * Number(style.opacity));
      const closed = !["line", "polyline"].includes(node.tagName);
      if ((fill && closed) || stroke) shapes.push({ d, fill: closed ? fill : null, stroke, width: parseFloat(style.strokeWidth) * scale, dash });
    }
  }
  for (const label of host.querySelectorAll("h3, h3 > span, .legend span, .scaled > span")) {
    const range = document.createRange();
    const lines = []; // the parts of a breakable name that stand in one line are one text
    for (const node of label.childNodes) {
      if (node.nodeType !== Node.TEXT_NODE || !node.textContent.trim()) continue;
      range.selectNodeContents(node);
      const box = range.getBoundingClientRect();
      if (lines.length && Math.abs(lines.at(-1).box.top - box.top) < 1) lines.at(-1).text += node.textContent;
      else lines.push({ text: node.textContent, box });
    }
    const style = getComputedStyle(label);
    const size = parseFloat(style.fontSize);
    for (const { text, box } of lines)
      shapes.push({ text, x: box.left - frame.left, y: box.top - frame.top + box.height / 2 + size * 0.35, anchor: "start", size, bold: Number(style.fontWeight) > 500, fill: ink(style.color) });
  }
  if (chosen === undefined) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  return { width: Math.ceil(frame.width), height: Math.ceil(frame.height), shapes };
}

const two = (value) => String(Math.round(value * 100) / 100);

function svgText({ width, height, shapes }) {
  const escaped = (text) => text.replace(/[&<>"]/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[one]);
  const colour = (value) => (value ? `rgb(${value.join(",")})` : "none");
  const lines = shapes.map((one) =>
    one.text !== undefined
      ? `<text x="${two(one.x)}" y="${two(one.y)}" text-anchor="${one.anchor}" font-size="${two(one.size)}"${one.bold ? ' font-weight="600"' : ""} fill="${colour(one.fill)}">${escaped(one.text)}</text>`
      : `<path d="${one.d.map(([op, ...values]) => op + values.map(two).join(" ")).join("")}" fill="${colour(one.fill)}" stroke="${colour(one.stroke)}"${one.stroke ? ` stroke-width="${two(one.width)}" stroke-dasharray="${one.dash.map(two).join(" ")}"` : ""}/>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="Helvetica, Arial, sans-serif"><rect width="${width}" height="${height}" fill="#fff"/>\n${lines.join("\n")}\n</svg>\n`;
}

// PDF's own fonts: Helvetica in the Windows encoding, and Symbol for Greek letters and the minus sign.
const WINDOWS = { "–": 0x96, "—": 0x97, "…": 0x85, "“": 0x93, "”": 0x94, "’": 0x92, "•": 0x95 };
const SYMBOL = { "−": 0x2d, θ: 0x71, κ: 0x6b, "≤": 0xa3, "≥": 0xb3, "→": 0xae };

function runsOf(text, bold) {
  const runs = [];
  for (const letter of text) {
    const code = letter.codePointAt(0);
    const symbol = SYMBOL[letter];
    const font = symbol === undefined ? (bold ? "B" : "H") : "S";
    const value = symbol ?? WINDOWS[letter] ?? (code < 0x80 || (code >= 0xa0 && code < 0x100) ? code : 0x3f);
    if (runs.at(-1)?.font !== font) runs.push({ font, codes: [] });
    runs.at(-1).codes.push(value);
  }
  return runs;
}

function pdfText({ width, height, shapes }) {
  const unit = (value) => two(value / 255);
  const colour = (value, op) => `${value.map(unit).join(" ")} ${op}`;
  const body = shapes.map((one) => {
    if (one.text === undefined) {
      const d = one.d.map(([op, ...values]) => (op === "Z" ? "h" : `${values.map(two).join(" ")} ${op.toLowerCase()}`)).join(" ");
      const pens = [one.fill ? colour(one.fill, "rg") : "", one.stroke ? `${colour(one.stroke, "RG")} ${two(one.width)} w [${one.dash.map(two).join(" ")}] 0 d` : ""];
      return `${pens.join(" ")} ${d} ${one.fill && one.stroke ? "B" : one.fill ? "f" : "S"}`;
    }
    pen.font = `${one.bold ? "bold " : ""}${one.size}px Helvetica, Arial, sans-serif`;
    const left = one.x - pen.measureText(one.text).width * ({ middle: 0.5, end: 1 }[one.anchor] ?? 0);
    const shown = runsOf(one.text, one.bold).map(({ font, codes }) => `/${font} ${two(one.size)} Tf <${codes.map((code) => code.toString(16).padStart(2, "0")).join("")}> Tj`);
    return `BT ${colour(one.fill ?? [0, 0, 0], "rg")} 1 0 0 -1 ${two(left)} ${two(one.y)} Tm ${shown.join(" ")} ET`;
  });
  const stream = `0.75 0 0 -0.75 0 ${two(0.75 * height)} cm 1 j\n${body.join("\n")}`;
  const font = (name, more) => `<< /Type /Font /Subtype /Type1 /BaseFont /${name}${more} >>`;
  const objects = [
    "<< /Type /Catalog /Pages 2 0 R >>",
    "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${two(0.75 * width)} ${two(0.75 * height)}] /Contents 4 0 R /Resources << /Font << /H 5 0 R /B 6 0 R /S 7 0 R >> >> >>`,
    `<< /Length ${stream.length} >>\nstream\n${stream}\nendstream`,
    font("Helvetica", " /Encoding /WinAnsiEncoding"), font("Helvetica-Bold", " /Encoding /WinAnsiEncoding"), font("Symbol", ""),
  ];
  let text = "%PDF-1.4\n";
  const places = objects.map((one, index) => {
    const at = text.length;
    text += `${index + 1} 0 obj\n${one}\nendobj\n`;
    return at;
  });
  const table = places.map((at) => `${String(at).padStart(10, "0")} 00000 n \n`).join("");
  return `${text}xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${table}trailer\n<< /Size ${objects.length + 1} /Root 1 0 R >>\nstartxref\n${text.length}\n%%EOF\n`;
}

function exportButtons(id, host) {
  const button = (kind, type, make) => element("button", { type: "button", "data-export": `${id}.${kind}`, onclick: () => download(`${id}.${kind}`, make(drawing(host)), type) }, kind.toUpperCase());
  return [button("svg", "image/svg+xml", svgText), button("pdf", "application/pdf", pdfText)];
}
