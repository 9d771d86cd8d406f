// Everything above and below the keys that does not change: verdict, numbers, what is cold, coverage, slowest keys, setup.
const head = data.head;

function drawOverview() {
  const isWhole = head.n_keys > 0 && head.is_complete;
  const unlisted = data.unlisted.filter((kernel) => kernel.outcome !== "skipped").length;
  const bad = head.n_cold + unlisted;
  const verdict = !head.n_keys ? "No key was planned"
    : head.n_cold ? `${plural(head.n_cold, "key is", "keys are")} not warm`
    : unlisted ? `${plural(unlisted, "kernel")} without a list of keys`
    : head.n_unexpected ? `Warm, and yet ${plural(head.n_unexpected, "unexpected compile")}`
    : isWhole ? "All keys are warm" : "The warm-up did not end";
  const title = $("verdict");
  title.textContent = verdict;
  title.classList.toggle("bad", Boolean(bad || head.n_unexpected || !isWhole));
  document.title = `${verdict} \u2013 jitwarm ${head.run}`;
  const where = head.on_device ? `loaded on a GPU (${head.target})` : `built for ${head.target}, not loaded: no GPU there`;
  $("run").textContent = `Run ${head.run}, ${head.started.replace("T", " ").replace(/\..*/, "")} UTC, ${where}. `
    + `${plural(data.processes.length, "process", "processes")}; store ${head.root}`;
  drawNumbers();
  for (const text of warnings()) $("warnings").append(make("li", { text }));
}

function drawNumbers() {
  const number = (name, value, note) => $("numbers").append(make("div", {}, make("dt", { text: name }), make("dd", {}, value, make("small", { text: note || "" }))));
  number("keys expected", count(head.n_keys), `of ${plural(data.names.length, "kernel")}`);
  number("warm", count(head.n_warm), head.n_keys ? `${Math.floor(100 * head.n_warm / head.n_keys)} % of them` : "");
  number("start", seconds(head.seconds), phasesText());
  if (data.builders.length) number("added to the start", seconds(head.added_s), `${seconds(head.hidden_s)} of compiling hidden behind loading`);
  number("compiler runs", count(head.n_compiles), `in ${plural(data.n_workers, "compile process", "compile processes")}`);
  number("unexpected compiles", head.n_unexpected || head.watched_by.jitwarm !== undefined ? count(head.n_unexpected) : "not watched", head.n_unexpected ? `${seconds(head.seconds_lost)} lost` : "");
  number("never used", head.n_never_used === null ? "unknown" : count(head.n_never_used), head.n_never_used ? `${seconds(head.seconds_never_used)} to build` : "");
}

function phasesText() {
  const longest = {};
  for (const process of data.processes) for (const [name, value] of Object.entries(process.phases)) longest[name] = Math.max(value, longest[name] || 0);
  return Object.entries(longest).map(([name, value]) => `${name} ${seconds(value)}`).join(", ");
}

function warnings() {
  const found = [];
  if (!head.is_complete) found.push("The warm-up of at least one process did not end: it is still going on, or was killed.");
  if (data.execution && data.execution.status === "failed") found.push(`The execution run failed: ${data.execution.why}`);
  if (head.n_unreadable) found.push(`${plural(head.n_unreadable, "line")} of the log could not be read.`);
  if (head.n_foreign) found.push(`${plural(head.n_foreign, "event")} of another version of jitwarm are left out.`);
  data.refused.forEach((r) => found.push(`Plugin ${r.plugin} (${r.distribution}) was refused: ${r.reason}`));
  data.policy_errors.forEach((e) => found.push(`Policy ${e.plugin}.${e.hook} failed: ${e.error}`));
  if (data.left_out.length) found.push(`Left out by JITWARM_PLUGINS or JITWARM_DISABLE: ${data.left_out.join(", ")}`);
  const times = new Map();
  data.incidents.forEach((incident) => times.set(incident.text, (times.get(incident.text) || 0) + 1));
  times.forEach((n, text) => found.push(n > 1 ? `${text} (${n} times)` : text));
  return found;
}

function drawCold() {
  const body = $("cold-body");
  const block = (title, ...children) => body.append(make("div", { class: "cold-block" }, make("h3", { text: title }), ...children));
  const box = () => make("div");
  if (data.unexpected.length) {
    const cases = box();
    shortList(data.unexpected, 6, compiledCase, cases);
    block(`Compiled after the warm-up: ${count(data.unexpected.length)}, ${seconds(head.seconds_lost)} lost`, cases);
  }
  for (const during of new Set(data.undeclared.map((found) => found.during))) {
    const found = data.undeclared.filter((one) => one.during === during), cases = box();
    shortList(found, 6, compiledCase, cases);
    block(`Compiled during ${during}, declared by nobody: ${count(found.length)}`, cases);
  }
  const groups = coldGroups();
  if (groups.length) {
    const cases = box();
    shortList(groups, 6, coldCase, cases);
    block(`Not warm: ${plural(head.n_cold, "key")}${data.unlisted.length ? `, and ${plural(data.unlisted.length, "kernel")} without a list` : ""}`, cases);
  }
  if (data.reloaded.length) {
    const cases = box();
    shortList(data.reloaded, 3, reloadedCase, cases);
    block(`On disk, and not in memory: ${count(data.reloaded.length)}`, cases);
  }
  const idle = idleByKernel();
  if (idle.length) {
    const cases = box();
    shortList(idle, 6, idleCase, cases);
    block(`Never used: ${plural(head.n_never_used, "key")}, ${seconds(head.seconds_never_used)} to build`, cases);
  }
  if (body.childElementCount) return;
  body.append(make("p", { class: "quiet", text: head.watched_by.jitwarm !== undefined
    ? "Nothing. Every key is warm, nothing was compiled after the warm-up, and every key that can be watched was used."
    : "Every key is warm. Nobody watched what came after: no monitor of jitwarm was armed in this run." }));
}

function compiledCase(found) {
  const times = found.n > 1 ? `${count(found.n)} times` : "";
  const who = found.processes.length > 1 ? `in ${plural(found.processes.length, "process", "processes")}` : found.processes[0];
  return make("div", { class: "case", "data-outcome": found.during ? "undeclared" : "unexpected" },
    make("div", { class: "top" },
      make("span", { class: "what", text: `${found.kernel || found.function}${found.what === "tuning" ? " (tuning)" : ""}` }),
      make("span", { class: "quiet small", text: [found.backend, seconds(found.seconds) + (found.during ? "" : " lost"), times, who, `first after ${seconds(found.first_s)}`].filter(Boolean).join(" \u00b7 ") })),
    make("p", { class: "mono", text: found.label }),
    make("p", { text: found.why }),
    found.differences.length ? make("ul", { class: "differences" }, found.differences.map((text) => make("li", { text }))) : "",
    found.nearest ? make("p", { class: "quiet small", text: `nearest expected key: ${found.nearest}` }) : "",
    found.line ? make("pre", { class: "line", text: found.line }) : "",
    found.site ? make("p", { class: "quiet small", text: `called at ${found.site}` }) : "");
}

// Keys that are cold for the same reason are one case, whichever kernels they are of.
function coldGroups() {
  const groups = new Map();
  for (const key of keys) {
    if (!cold.has(key.index)) continue;
    const name = `${key.outcome}\n${key.error || ""}`;
    if (!groups.has(name)) groups.set(name, { outcome: key.outcome, error: key.error, keys: [] });
    groups.get(name).keys.push(key);
  }
  return [...data.unlisted.map((u) => ({ ...u, keys: [] })), ...[...groups.values()].sort((a, b) => b.keys.length - a.keys.length)];
}

function coldCase(group) {
  const [first] = group.keys, kernels = new Set(group.keys.map((key) => key.kernel)).size;
  const title = first ? `${plural(group.keys.length, "key")} ${group.outcome}` : `${group.kernel}: its keys could not be listed (${group.outcome})`;
  const list = make("ul", { class: "members" });
  shortList(group.keys, 3, (key) => make("li", {}, make("button", { type: "button", class: "link mono", text: `${key.kernel} [${key.label}]`, onclick: () => showKey(key) })), list);
  return make("div", { class: "case", "data-outcome": group.outcome },
    make("div", { class: "top" }, make("span", { class: "what", text: title }), kernels > 1 ? make("span", { class: "quiet small", text: `of ${count(kernels)} kernels` }) : ""),
    make("pre", { text: group.error || (group.outcome === "not reached" ? "It was planned, and the log ends before it." : "No reason given.") }),
    first ? list : "",
    first && first.repro ? make("pre", { class: "line", text: first.repro }) : "");
}

function reloadedCase(found) {
  return make("div", { class: "case" },
    make("div", { class: "top" }, make("span", { class: "what", text: found.kernel || found.function }), make("span", { class: "quiet small", text: `${found.backend} \u00b7 ${plural(found.n, "time")}, ${seconds(found.seconds)}` })),
    make("p", { class: "mono", text: found.label }),
    found.site ? make("p", { class: "quiet small", text: `called at ${found.site}` }) : "");
}

function idleByKernel() {
  const groups = new Map();
  for (const key of keys) {
    if (!key.isIdle) continue;
    const group = groups.get(key.kernel) || { kernel: key.kernel, n: 0, seconds: 0, all: 0 };
    group.n += 1;
    group.seconds += key.seconds;
    groups.set(key.kernel, group);
  }
  for (const row of data.kernels) if (groups.has(row.id)) groups.get(row.id).all = row.warmed;
  return [...groups.values()].sort((a, b) => b.seconds - a.seconds);
}

function idleCase(group) {
  return make("div", { class: "case" }, make("div", { class: "top" },
    make("button", { type: "button", class: "link what", text: group.kernel, onclick: () => filterKeys({ kernel: group.kernel, chip: "never used" }) }),
    make("span", { class: "quiet", text: `${count(group.n)} of ${plural(group.all, "warm key")}, ${seconds(group.seconds)}` })));
}

function drawCoverage() {
  const known = (value) => (value === null ? "\u2013" : count(value));
  const table = $("coverage-table");
  const columns = ["kernel", "expected", "warm", "loaded", "used", "missed", "never used", "seconds"];
  table.append(make("thead", {}, make("tr", {}, columns.map((text, i) => make("th", { scope: "col", class: i ? "number" : "", text })))));
  const body = make("tbody");
  const numbers = (row) => [count(row.expected), count(row.warmed), count(row.loaded), known(row.hit), known(row.missed), known(row.never_used), row.seconds.toFixed(2)];
  const cells = (row) => numbers(row).map((text, i) => make("td", { class: `number${(i === 4 && row.missed) || (i === 1 && row.warmed < row.expected) ? " bad" : ""}`, text }));
  for (const plugin of data.plugins) {
    body.append(make("tr", { class: "group" }, make("th", { scope: "rowgroup", text: plugin.plugin || "no plugin declares these" }), cells(plugin)));
    for (const row of data.kernels.filter((kernel) => kernel.plugin === plugin.plugin)) {
      const name = row.expected
        ? make("button", { type: "button", class: "link", text: row.id, onclick: () => filterKeys({ kernel: row.id }) })
        : make("span", { text: row.id });
      body.append(make("tr", {}, make("th", { scope: "row" }, name, make("span", { class: "quiet small", text: row.backend ? ` ${row.backend}` : "" })), cells(row)));
    }
  }
  table.append(body);
}

function drawSlowest() {
  const slowest = [...keys].sort((a, b) => b.seconds - a.seconds).slice(0, 10).filter((key) => key.seconds > 0);
  if (!slowest.length) $("slowest-list").append(make("li", { class: "empty", text: "No key took any time." }));
  for (const key of slowest) {
    const fill = make("span", { class: "fill" });
    fill.style.width = `${100 * key.seconds / slowest[0].seconds}%`;
    $("slowest-list").append(make("li", {}, make("button", { type: "button", onclick: () => showKey(key) },
      make("span", { class: "kernel", text: key.kernel }), make("span", { class: "number", text: seconds(key.seconds) }),
      make("span", { class: "label", text: key.label }), fill)));
  }
}

function drawSetup() {
  const flat = (value, prefix) => Object.entries(value).flatMap(([name, inner]) => (
    inner && typeof inner === "object" && !Array.isArray(inner) && Object.keys(inner).length
      ? flat(inner, `${prefix}${name}.`) : [[prefix + name, inner]]));
  const show = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const table = (rows) => make("table", {}, make("tbody", {}, rows.map(([name, value]) => make("tr", {}, make("td", { text: name }), make("td", { class: "mono", text: show(value) })))));
  const section = (title, rows) => { if (rows.length) $("setup-body").append(make("details", {}, make("summary", { text: `${title} (${count(rows.length)})` }), make("div", {}, table(rows)))); };
  section("Versions", flat(data.versions, ""));
  section("Processes", data.processes.map((process) => [process.name, `${seconds(process.seconds)}, ${plural(process.n_compiles, "compiler run")}, ${JSON.stringify(process.outcomes)}${process.is_complete ? "" : ", did not end"}`]));
  section("Configuration", flat(data.config, ""));
  section("Environment of the compilers", flat(data.environment, ""));
  section("Notes on kernels", data.kernels.flatMap((kernel) => kernel.notes.map((note) => [kernel.id, note])));
  section("GPU code loaded at the first launch", data.modules_loaded.map((m) => [m.kernel || m.function, `${plural(m.n, "time")} ${m.site}`]));
}
