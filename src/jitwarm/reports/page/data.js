// The data of the page, and how it is shown as text. All of it comes from a log that anybody may have written: it becomes
// text nodes and never markup.
const data = JSON.parse(document.getElementById("data").textContent);

const FIELDS = ["kernel", "digest", "label", "text", "outcome", "seconds", "error", "worker", "used", "regions", "nRegions", "witness", "ranks", "repro"];
const isWarm = (outcome) => ["compiled", "loaded", "already_warm"].includes(outcome);
const keys = data.keys.map((row, index) => {
  const key = { index };
  FIELDS.forEach((field, i) => { key[field] = row[i]; });
  key.kernel = data.names[key.kernel];
  key.outcome = key.outcome || "not reached";
  key.isIdle = isWarm(key.outcome) && key.used === false;
  return key;
});
const cold = new Set(data.cold);

const $ = (id) => document.getElementById(id);

// An element with properties and children; a string among the children is text.
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const count = (n) => n.toLocaleString("en-US");
const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many || one + "s"}`;

function seconds(value) {
  if (value >= 3600) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  if (value >= 600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value >= 100) return `${value.toFixed(0)} s`;
  if (value >= 10) return `${value.toFixed(1)} s`;
  return value >= 0.0995 ? `${value.toFixed(2)} s` : `${(value * 1000).toFixed(value >= 0.00995 ? 0 : 1)} ms`;
}

// `["int","1"]` as `1`: what the canonical text of a key says of its fields.
function fieldsOf(text) {
  try {
    return Object.entries(JSON.parse(text)).map(([name, leaf]) => [name, leaf[0], valueOf(leaf)]);
  } catch {
    return null;
  }
}
function valueOf(leaf) {
  if (leaf[0] === "none") return "None";
  if (leaf[0] === "dataclass") return Object.entries(leaf[2]).map(([name, inner]) => `${name}=${valueOf(inner)}`).join(", ");
  return Array.isArray(leaf[1]) ? `(${leaf[1].map(valueOf).join(", ")})` : String(leaf[1]);
}

// The first ones of a long list, and a button for the rest.
function shortList(items, n, draw, parent) {
  items.slice(0, n).forEach((item) => parent.append(draw(item)));
  if (items.length <= n) return;
  const button = make("button", { type: "button", class: "more", text: `Show ${count(items.length - n)} more`, onclick: () => {
    button.remove();
    const rest = items.slice(n).map(draw);
    parent.append(...rest);
    rest[0].tabIndex = -1; // so that the keyboard goes on where the button was
    rest[0].focus();
  } });
  parent.append(button);
}
