// The timeline: one canvas, because a start may have many thousands of slices, as large as what is in sight, because it may have
// hundreds of tracks. What the pointer or the arrows are at is told in words below it.
const timeline = (() => {
  const { end, tracks, slices, marks } = data.timeline;
  const ROW = 20, BAR = 13, AXIS = 26, GROUP = 26, PAD = 12, TALLEST = 458;
  const box = $("tracks"), canvas = $("canvas"), pen = canvas.getContext("2d"), readout = $("readout");
  const tops = [];
  let height = AXIS, gutter = 150, isNarrow = false, view = [0, end], chosen = -1, hovered = -1, colours = {}, isQueued = false;

  let group = null;
  for (const track of tracks) {
    if (track.group !== group) height += GROUP;
    group = track.group;
    tops.push(height);
    height += ROW;
  }
  height += 10;
  const shown = Math.min(height, TALLEST);
  // In the order in which arrows go through them; found by track for the pointer.
  const ofTrack = tracks.map(() => []);
  slices.forEach((slice, i) => ofTrack[slice[0]].push(i));

  const width = () => canvas.clientWidth;
  const x = (t) => gutter + (t - view[0]) / (view[1] - view[0]) * (width() - gutter - PAD);
  const timeAt = (px) => view[0] + (px - gutter) / (width() - gutter - PAD) * (view[1] - view[0]);

  function readColours() {
    const probe = make("span", { hidden: true });
    document.body.append(probe);
    const read = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
    colours = Object.fromEntries(["panel", "ground", "line", "ink", "quiet", "compiled", "loaded", "already_warm", "skipped", "unresolved", "failed", "phase"].map((name) => [name, read(name)]));
    probe.remove();
  }

  // What a slice is to the reader: a build in a compile process says how it ended there.
  function tone(slice) {
    const outcome = slice[5];
    if (slice[3] < 0) return "phase";
    if (outcome === "built" || outcome === "") return "compiled";
    return { timed_out: "failed", died: "failed", killed: "failed" }[outcome] || (colours[outcome] ? outcome : "skipped");
  }

  function draw() {
    isQueued = false;
    const ratio = window.devicePixelRatio || 1, w = width();
    isNarrow = w < 600;
    gutter = isNarrow ? 104 : 150;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(shown * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(shown * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, shown);
    pen.textBaseline = "middle";
    drawAxis(w);
    clipped(0, w, () => tracks.forEach(drawName));
    clipped(gutter, w - gutter, () => {
      ofTrack.forEach((own, track) => { if (isInSight(track)) drawTrack(own); });
      marks.filter(([track]) => isInSight(track)).forEach(drawMark);
      for (const i of [hovered, chosen]) if (i >= 0) drawFrameOf(i);
    });
  }

  const isInSight = (track) => tops[track] + ROW > box.scrollTop && tops[track] - GROUP < box.scrollTop + shown;

  // What scrolls lies below the axis.
  function clipped(left, wide, act) {
    pen.save();
    pen.beginPath();
    pen.rect(left, AXIS, wide, shown - AXIS);
    pen.clip();
    pen.translate(0, -box.scrollTop);
    act();
    pen.restore();
  }

  function drawAxis(w) {
    const span = view[1] - view[0], wanted = Math.max(2, Math.floor((w - gutter) / 110));
    const raw = span / wanted, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    pen.font = "11px system-ui, sans-serif";
    for (let t = Math.ceil(view[0] / step) * step; t <= view[1]; t += step) {
      const at = Math.round(x(t)) + 0.5;
      pen.strokeStyle = colours.line;
      pen.beginPath(); pen.moveTo(at, AXIS - 6); pen.lineTo(at, shown); pen.stroke();
      pen.fillStyle = colours.quiet;
      pen.textAlign = at > w - 34 ? "right" : "center";
      pen.fillText(`${t.toFixed(digits)} s`, Math.max(at, gutter + 10), 12);
    }
  }

  function drawName(track, i) {
    if (!isInSight(i)) return;
    pen.textAlign = "left";
    if (i === 0 || tracks[i - 1].group !== track.group) {
      pen.font = "600 11px system-ui, sans-serif";
      pen.fillStyle = colours.ink;
      pen.fillText(track.group, PAD, tops[i] - GROUP / 2 + 2);
    }
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colours.quiet;
    const name = isNarrow ? track.name.replace(/^worker /, "") : track.name;
    pen.fillText(shortened(name, gutter - PAD - 8), PAD, tops[i] + ROW / 2);
  }

  function shortened(text, room) {
    if (pen.measureText(text).width <= room) return text;
    let cut = text;
    while (cut && pen.measureText(`${cut}\u2026`).width > room) cut = cut.slice(0, -1);
    return `${cut}\u2026`;
  }

  // Of slices that would cover the same pixel only those of another tone are drawn.
  function drawTrack(own) {
    let until = -Infinity, last = "";
    for (const i of own) {
      const slice = slices[i], left = x(slice[1]), right = x(slice[2]), now = tone(slice);
      if (right < gutter || left > width() || (right < until + 0.5 && now === last)) continue;
      const wide = Math.max(right - left - (right - left > 3 ? 1 : 0), 1), top = tops[slice[0]] + (ROW - BAR) / 2;
      pen.fillStyle = colours[now];
      pen.fillRect(left, top, wide, BAR);
      if (slice[3] < 0 && wide > 40) drawPhase(slice[4], left, top, wide);
      [until, last] = [left + wide, now];
    }
  }

  function drawPhase(name, left, top, wide) {
    pen.fillStyle = colours.ink;
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.fillText(shortened(name, wide - 8), Math.max(left, gutter) + 5, top + BAR / 2 + 0.5);
  }

  function drawFrameOf(i) {
    const [track, from, to] = slices[i], left = x(from);
    pen.strokeStyle = i === chosen ? colours.ink : colours.quiet;
    pen.lineWidth = 2;
    pen.strokeRect(left - 1, tops[track] + (ROW - BAR) / 2 - 1, Math.max(x(to) - left, 1) + 1, BAR + 2);
    pen.lineWidth = 1;
  }

  function drawMark([track, at]) {
    const px = x(at), top = tops[track];
    pen.fillStyle = colours.failed;
    pen.beginPath(); pen.moveTo(px, top + 3); pen.lineTo(px + 5, top + ROW / 2); pen.lineTo(px, top + ROW - 3); pen.lineTo(px - 5, top + ROW / 2); pen.fill();
  }

  function redraw() {
    if (!isQueued) { isQueued = true; requestAnimationFrame(draw); }
  }

  function tell(i) {
    if (i < 0) { readout.textContent = `${count(slices.length)} slices on ${plural(tracks.length, "track")}, ${seconds(end)}.`; return; }
    const [track, from, to, key, name, outcome] = slices[i];
    const what = key >= 0 ? `${keys[key].kernel} [${keys[key].label}]` : name;
    readout.textContent = `${what}: ${seconds(to - from)}, from ${from.toFixed(3)} s to ${to.toFixed(3)} s${outcome ? `, ${outcome}` : ""}; ${tracks[track].group}, ${tracks[track].name}`;
  }

  function at(event) {
    const place = canvas.getBoundingClientRect(), px = event.clientX - place.left, down = event.clientY - place.top;
    const py = down < AXIS ? -1 : down + box.scrollTop;
    const track = tops.findIndex((top) => py >= top && py < top + ROW);
    if (track < 0 || px < gutter) return -1;
    const t = timeAt(px), near = 2 * (view[1] - view[0]) / Math.max(width() - gutter, 1);
    return ofTrack[track].find((i) => slices[i][1] - near <= t && t <= slices[i][2] + near) ?? -1;
  }

  function zoom(factor, middle = (view[0] + view[1]) / 2) {
    const span = Math.min(end, Math.max((view[1] - view[0]) * factor, 1e-4));
    const share = (middle - view[0]) / (view[1] - view[0]);
    move(middle - share * span, span);
  }

  function move(from, span = view[1] - view[0]) {
    const start = Math.min(Math.max(from, 0), Math.max(end - span, 0));
    view = [start, start + span];
    redraw();
  }

  function choose(i) {
    chosen = i;
    tell(i);
    if (i >= 0) {
      const [track, from, to] = slices[i], span = view[1] - view[0];
      if (from < view[0] || to > view[1]) move((from + to) / 2 - span / 2);
      if (tops[track] < box.scrollTop + AXIS || tops[track] + ROW > box.scrollTop + shown) box.scrollTop = tops[track] - shown / 2;
    }
    redraw();
  }

  // Left and right stay in the track; up and down go to the slice that is nearest in time in the next track that has one.
  function step(key) {
    if (chosen < 0) return slices.length ? 0 : -1;
    const [track, from] = slices[chosen], own = ofTrack[track], place = own.indexOf(chosen);
    if (key === "ArrowRight") return own[Math.min(place + 1, own.length - 1)];
    if (key === "ArrowLeft") return own[Math.max(place - 1, 0)];
    const way = key === "ArrowDown" ? 1 : -1;
    for (let next = track + way; next >= 0 && next < tracks.length; next += way) {
      if (ofTrack[next].length) return ofTrack[next].reduce((best, i) => (Math.abs(slices[i][1] - from) < Math.abs(slices[best][1] - from) ? i : best));
    }
    return chosen;
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) choose(step(event.key));
    else if (event.key === "Enter" && chosen >= 0 && slices[chosen][3] >= 0) showKey(keys[slices[chosen][3]]);
    else if (event.key === "+" || event.key === "=") zoom(0.5, chosen >= 0 ? slices[chosen][1] : undefined);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") move(0, end);
    else return;
    event.preventDefault();
  }

  function listen() {
    let drag = null;
    canvas.addEventListener("keydown", onKey);
    canvas.addEventListener("blur", () => { chosen = -1; redraw(); });
    canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, from: view[0], isMoved: false }; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", (event) => {
      if (drag && !drag.isMoved) {
        const i = at(event);
        if (i >= 0) { choose(i); if (slices[i][3] >= 0) selectKey(keys[slices[i][3]]); }
      }
      drag = null;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag && Math.abs(event.clientX - drag.x) > 3) drag.isMoved = true;
      if (drag && drag.isMoved) return move(drag.from - (event.clientX - drag.x) / (width() - gutter - PAD) * (view[1] - view[0]));
      const i = at(event);
      if (i !== hovered) { hovered = i; tell(i >= 0 ? i : chosen); redraw(); }
    });
    canvas.addEventListener("pointerleave", () => { hovered = -1; tell(chosen); redraw(); });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event.clientX - canvas.getBoundingClientRect().left));
    }, { passive: false });
    $("zoom-in").addEventListener("click", () => zoom(0.5));
    $("zoom-out").addEventListener("click", () => zoom(2));
    $("zoom-fit").addEventListener("click", () => move(0, end));
    box.addEventListener("scroll", redraw, { passive: true });
    new ResizeObserver(redraw).observe(canvas);
  }

  function drawLegend() {
    const found = new Set(slices.map(tone));
    const names = { compiled: "built or compiled", loaded: "loaded", already_warm: "already warm", skipped: "skipped", unresolved: "unresolved", failed: "failed", phase: "phase" };
    for (const [name, text] of Object.entries(names)) if (found.has(name)) $("legend").append(make("span", { "data-outcome": name, text }));
    if (marks.length) $("legend").append(make("span", { "data-outcome": "unexpected", text: "unexpected compile" }));
  }

  return {
    start() {
      canvas.style.height = `${shown}px`;
      $("extent").style.height = `${height - shown}px`;
      readColours();
      drawLegend();
      listen();
      tell(-1);
      redraw();
    },
    recolour() { readColours(); redraw(); },
  };
})();
