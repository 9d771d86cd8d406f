// The keys: search, filters, order, a grid that holds only the rows in sight, and the chosen key in full.
const grid = $("grid"), rows = $("rows"), search = $("search"), kernelFilter = $("kernel");
const COLUMNS = [
  ["kernel", "Kernel", (key) => key.kernel],
  ["label", "Key", (key) => key.label],
  ["reached", "Reached by", (key) => (key.regions && key.regions[0]) || ""],
  ["outcome", "Outcome", (key) => key.outcome],
  ["seconds", "Seconds", (key) => key.seconds],
  ["used", "Used", (key) => (key.used === null ? 2 : key.used ? 0 : 1)],
];
const MARGIN = 12; // rows beyond those in sight
const state = { found: keys, chips: new Set(), sort: "seconds", isDown: true, at: -1 };
const texts = keys.map((key) => [key.kernel, key.label, key.digest, key.outcome, key.error || "", (key.regions || []).join(" ")].join("\n").toLowerCase());
const CHIPS = {
  ...Object.fromEntries([...new Set(keys.map((key) => key.outcome))].map((outcome) => [outcome, (key) => key.outcome === outcome])),
  cold: (key) => cold.has(key.index),
  "never used": (key) => key.isIdle,
  "warm in some ranks only": (key) => Array.isArray(key.ranks) && key.ranks.some(isWarm) && !key.ranks.every((outcome) => outcome === 0 || isWarm(outcome)),
};

function drawKeys() {
  for (const [name, title] of COLUMNS) {
    $("columns").append(make("span", { role: "columnheader", class: name, "data-name": name }, make("button", { type: "button", text: title, onclick: () => sortBy(name) })));
  }
  const perKernel = new Map();
  keys.forEach((key) => perKernel.set(key.kernel, (perKernel.get(key.kernel) || 0) + 1));
  kernelFilter.append(make("option", { value: "", text: `All kernels (${count(data.names.length)})` }));
  data.names.forEach((name) => kernelFilter.append(make("option", { value: name, text: `${name} (${count(perKernel.get(name) || 0)})` })));
  for (const [name, holds] of Object.entries(CHIPS)) {
    const n = keys.filter(holds).length;
    if (n) $("chips").append(make("button", { type: "button", "aria-pressed": "false", "data-chip": name, "data-outcome": name, onclick: () => toggle(name) }, name, make("small", { text: ` ${count(n)}` })));
  }
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") { event.preventDefault(); grid.focus(); choose(Math.max(state.at, 0)); }
  });
  kernelFilter.addEventListener("change", find);
  grid.addEventListener("scroll", drawRows, { passive: true });
  grid.addEventListener("keydown", onGridKey);
  grid.addEventListener("focus", () => { if (state.at < 0 && grid.matches(":focus-visible")) choose(0); });
  rows.addEventListener("click", (event) => { const row = event.target.closest("[data-at]"); if (row) { grid.focus(); choose(Number(row.dataset.at)); revealDetail(); } });
  new ResizeObserver(drawRows).observe(grid);
  find();
  state.at = state.found.length ? 0 : -1;
  drawRows();
  showDetail(state.found[0]);
}

function toggle(name) {
  if (!state.chips.delete(name)) state.chips.add(name);
  find();
}

function sortBy(name) {
  state.isDown = state.sort === name ? !state.isDown : name === "seconds";
  state.sort = name;
  find();
}

// Outcomes are alternatives to one another; the other chips narrow further.
function find() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chips = [...state.chips], outcomes = chips.filter((name) => keys.some((key) => key.outcome === name));
  const others = chips.filter((name) => !outcomes.includes(name)).map((name) => CHIPS[name]);
  const kernel = kernelFilter.value, selected = state.found[state.at];
  const value = COLUMNS.find(([name]) => name === state.sort)[2], sign = state.isDown ? -1 : 1;
  state.found = keys.filter((key) => (!kernel || key.kernel === kernel)
    && (!outcomes.length || outcomes.includes(key.outcome))
    && others.every((holds) => holds(key))
    && words.every((word) => texts[key.index].includes(word)));
  const compare = state.sort === "seconds" || state.sort === "used" ? (a, b) => a - b : new Intl.Collator("en", { numeric: true }).compare;
  state.found.sort((a, b) => sign * compare(value(a), value(b)) || a.index - b.index);
  state.at = selected ? state.found.indexOf(selected) : -1;
  grid.scrollTop = 0;
  drawFrame();
}

function drawFrame() {
  const n = state.found.length, total = state.found.reduce((sum, key) => sum + key.seconds, 0);
  $("count").textContent = n === keys.length ? `${plural(n, "key")}, ${seconds(total)}` : `${count(n)} of ${plural(keys.length, "key")}, ${seconds(total)}`;
  grid.setAttribute("aria-rowcount", n + 1);
  grid.setAttribute("aria-colcount", COLUMNS.length);
  document.querySelectorAll("[data-chip]").forEach((chip) => chip.setAttribute("aria-pressed", state.chips.has(chip.dataset.chip)));
  document.querySelectorAll("#columns [data-name]").forEach((column) => {
    if (column.dataset.name === state.sort) column.setAttribute("aria-sort", state.isDown ? "descending" : "ascending");
    else column.removeAttribute("aria-sort");
  });
  drawRows();
}

const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));

function drawRows() {
  const height = rowHeight(), n = state.found.length;
  rows.style.height = `${Math.max(n * height, 1)}px`;
  grid.style.setProperty("--whole", `${keys.length * height + 36}px`);
  const from = Math.max(0, Math.floor(grid.scrollTop / height) - MARGIN);
  const to = Math.min(n, Math.ceil((grid.scrollTop + grid.clientHeight) / height) + MARGIN);
  const shown = [];
  for (let i = from; i < to; i += 1) shown.push(rowOf(i, height));
  if (!n) shown.push(make("p", { class: "empty", text: keys.length ? "No key matches." : "No key was planned." }));
  rows.replaceChildren(...shown);
  if (state.at >= from && state.at < to) grid.setAttribute("aria-activedescendant", `row-${state.at}`);
  else grid.removeAttribute("aria-activedescendant");
}

function rowOf(i, height) {
  const key = state.found[i];
  const more = key.nRegions > 1 ? ` +${key.nRegions - 1}` : "";
  const reached = key.regions === null ? "" : key.regions.length ? key.regions[0] + more : "listed by hand";
  const used = key.used === null ? "\u2013" : key.used ? "yes" : "never";
  const row = make("div", { role: "row", class: "row", id: `row-${i}`, "data-at": i, "aria-rowindex": i + 2, "aria-selected": i === state.at ? "true" : "false" },
    make("span", { role: "gridcell", class: "kernel", title: key.kernel, text: key.kernel }),
    make("span", { role: "gridcell", class: "label", title: key.label, text: key.label }),
    make("span", { role: "gridcell", class: "reached", text: reached }),
    make("span", { role: "gridcell", class: "outcome", "data-outcome": key.outcome, text: key.outcome }),
    make("span", { role: "gridcell", class: "seconds", text: seconds(key.seconds) }),
    make("span", { role: "gridcell", class: "used", text: used }));
  row.style.top = `${i * height}px`;
  return row;
}

function choose(i) {
  if (!state.found.length) return;
  state.at = Math.min(Math.max(i, 0), state.found.length - 1);
  const height = rowHeight(), top = state.at * height, head = $("columns").offsetHeight;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + height > grid.scrollTop + grid.clientHeight - head) grid.scrollTop = top + height - grid.clientHeight + head;
  drawRows();
  showDetail(state.found[state.at]);
}

// Where the details stand below the table, a chosen key must not seem to do nothing.
function revealDetail() {
  if ($("detail").offsetTop > grid.offsetTop) $("detail").scrollIntoView({ block: "nearest" });
}

function onGridKey(event) {
  if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Math.max(1, Math.floor(grid.clientHeight / rowHeight()) - 2);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key in steps) choose(Math.max(0, Math.min(state.found.length - 1, state.at + steps[event.key])));
  else if (event.key === "Enter" && state.at >= 0) $("detail").focus();
  else return;
  event.preventDefault();
}

// Show a key wherever it is: without filters, should they hide it.
function selectKey(key) {
  if (!state.found.includes(key)) {
    search.value = kernelFilter.value = "";
    state.chips.clear();
    find();
  }
  choose(state.found.indexOf(key));
}

function showKey(key) {
  selectKey(key);
  $("keys").scrollIntoView();
  grid.focus({ preventScroll: true });
}

function filterKeys({ kernel = "", chip = "" }) {
  search.value = "";
  kernelFilter.value = kernel;
  state.chips = new Set(chip ? [chip] : []);
  find();
  $("keys").scrollIntoView();
  grid.focus({ preventScroll: true });
}

function showDetail(key) {
  const detail = $("detail");
  if (!key) { detail.replaceChildren(make("p", { class: "quiet", text: keys.length ? "Choose a key to see what reaches it, how it ended, and in which rank." : "" })); return; }
  const fields = fieldsOf(key.text);
  const part = (title, ...children) => [make("h4", { text: title }), ...children];
  const table = (pairs) => make("table", {}, make("tbody", {}, pairs.map((cells) => make("tr", {}, cells.map((text, i) => make(i ? "td" : "th", i ? { text } : { scope: "row", text }))))));
  const reached = key.regions === null ? [make("p", { class: "quiet", text: "The log does not say." })]
    : !key.regions.length ? [make("p", { class: "quiet", text: "Listed by hand: no dispatch was traced for it." })]
    : [make("ul", { class: "regions" }, key.regions.map((text) => make("li", { text }))),
      key.nRegions > key.regions.length ? make("p", { class: "quiet small", text: `and ${count(key.nRegions - key.regions.length)} more regions` }) : ""];
  const witness = Object.entries(key.witness || {});
  detail.replaceChildren(
    make("h3", { text: key.kernel }),
    make("p", { class: "quiet small", text: key.digest }),
    make("p", {}, make("span", { class: "outcome", "data-outcome": key.outcome, text: key.outcome }), ` in ${seconds(key.seconds)}${key.worker ? `, built by ${key.worker}` : ""}`),
    ...(key.error ? part("Error", make("pre", { text: key.error })) : []),
    ...(key.repro ? part("Try it alone", make("pre", { text: key.repro })) : []),
    ...part("Fields", fields ? table(fields) : make("pre", { text: key.text || key.label })),
    ...part("Reached by", ...reached),
    ...(witness.length ? part("For example", make("pre", { text: witness.map(([name, value]) => `${name}=${value}`).join(", ") })) : []),
    ...(key.used === null ? [] : part("Used", make("p", { text: key.used ? "Yes, after the warm-up." : "Never, after the warm-up." }))),
    ...(Array.isArray(key.ranks) ? part("By rank", table(key.ranks.map((outcome, i) => [data.processes[i].name, outcome === 0 ? "not planned" : outcome || "not reached"]))) : []));
}
