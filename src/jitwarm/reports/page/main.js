// Colours, keys of the whole page, and the order in which it is drawn.
function setTheme(name, isKept) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  document.querySelector(`.theme input[value="${name}"]`).checked = true;
  try { if (isKept) localStorage.setItem("jitwarm-theme", name); } catch { /* a page from a file may have no storage */ }
  timeline.recolour();
}

function keptTheme() {
  try {
    const kept = localStorage.getItem("jitwarm-theme");
    return ["auto", "light", "dark"].includes(kept) ? kept : "auto";
  } catch {
    return "auto";
  }
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input:not([type=radio]), select, textarea");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && event.target === search && search.value) {
    search.value = "";
    find();
  } else if (event.key === "Escape" && $("detail").contains(event.target)) {
    grid.focus();
  }
});
document.querySelectorAll(".theme input").forEach((input) => input.addEventListener("change", () => setTheme(input.value, true)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.recolour());

drawOverview();
drawCold();
drawCoverage();
drawSlowest();
drawSetup();
timeline.start();
drawKeys();
setTheme(keptTheme(), false);
document.documentElement.dataset.ready = "yes";
