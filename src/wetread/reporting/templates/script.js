"use strict";
// Niceties only: without this script every page still says and shows the same.
for (const viewer of document.querySelectorAll("[data-viewer]")) {
  const slider = viewer.querySelector("[data-opacity]");
  if (!slider) continue;
  slider.parentElement.hidden = false;
  slider.addEventListener("input", () => {
    viewer.style.setProperty("--heat-opacity", String(slider.value / 100));
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const box of document.querySelectorAll(".enlarge:checked")) box.checked = false;
});
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  const key = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent.trim();
  const sortBy = (head, i) => {
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(table.tBodies[0].rows);
    rows.sort((a, b) => {
      const [x, y] = [key(a, i), key(b, i)];
      const order = Number(x) - Number(y) || x.localeCompare(y, "en", { numeric: true });
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  };
  heads.forEach((head, i) => {
    if (!("sort" in head.dataset)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(head, i));
    head.append(button);
  });
}
