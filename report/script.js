"use strict";

// Sorting of tables, and nothing else: all that the page says and opens works without this script.
(() => {
  const UNITS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  const words = new Intl.Collator("en", { numeric: true });

  // The first number of a cell, or null where there is none: "84.27 ± 0.13", "−1.7", "< 0.001", "1.16 G", "17 024".
  const numberIn = (text) => {
    const found = text.replace(/−/g, "-").replace(/(\d)[\u202f,](?=\d{3})/g, "$1").match(/^[<>\s]*([+-]?\d+(?:\.\d+)?)(?:\s([kMGTP])(?![a-z]))?/);
    return found ? Number(found[1]) * (UNITS[found[2]] ?? 1) : null;
  };

  const compare = (first, second, sign) => {
    if (first === null || second === null) {
      return (first === null) - (second === null); // Cells without a number come last in either order.
    }
    return sign * (typeof first === "number" ? first - second : words.compare(first, second));
  };

  const sort = (table, header, rows) => {
    const order = NEXT[header.getAttribute("aria-sort") ?? "none"];
    for (const other of header.parentElement.cells) {
      other.removeAttribute("aria-sort");
    }
    const sorted = rows.slice();
    if (order !== "none") {
      header.setAttribute("aria-sort", order);
      const numeric = header.classList.contains("right");
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => {
        const text = row.cells[header.cellIndex].textContent.trim();
        return numeric ? numberIn(text) : text;
      };
      sorted.sort((first, second) => compare(value(first), value(second), sign));
    }
    table.classList.toggle("sorted", order !== "none"); // Lines between groups of rows mean something as printed only.
    table.tBodies[0].append(...sorted);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const rows = Array.from(table.tBodies[0].rows);
    for (const header of table.tHead.rows[table.tHead.rows.length - 1].cells) {
      if (rows.length < 2 || !header.textContent.trim()) {
        continue;
      }
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      if (header.dataset.label) {
        button.setAttribute("aria-label", header.dataset.label);
      }
      button.addEventListener("click", () => sort(table, header, rows));
      header.append(button);
    }
  }
})();
