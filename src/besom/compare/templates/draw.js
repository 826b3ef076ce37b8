// Draws every chart of the page, and again when day turns to night: plotly's colours are not CSS.
const figures = JSON.parse(document.getElementById("figures").textContent);
const night = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

function draw() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const paper = style.getPropertyValue("--paper").trim();
  for (const [slug, figure] of Object.entries(figures)) {
    const layout = {
      ...figure.layout,
      font: { color: ink, size: 13, family: "system-ui, sans-serif" },
      hoverlabel: { ...figure.layout.hoverlabel, bgcolor: paper, bordercolor: ink, font: { color: ink } },
      transition: { duration: still.matches ? 0 : 150 },
    };
    Plotly.react(`chart-${slug}`, figure.data, layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    });
  }
}

draw();
night.addEventListener("change", draw);
