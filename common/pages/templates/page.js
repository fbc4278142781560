// Tooltips: every <title> inside a drawing becomes one; without this script the browser shows it itself.
(() => {
  const tip = document.getElementById("tip");
  const place = (x, y) => {
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth - 8 ? x - 14 - box.width : x + 14;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, Math.min(y - 12, innerHeight - box.height - 8)) + "px";
  };
  for (const title of document.querySelectorAll("svg title")) {
    const mark = title.parentElement, words = title.textContent;
    title.remove();
    mark.setAttribute("aria-label", words);
    mark.addEventListener("pointerenter", (e) => {
      tip.textContent = words;
      tip.hidden = false;
      place(e.clientX, e.clientY);
    });
    mark.addEventListener("pointermove", (e) => place(e.clientX, e.clientY));
    mark.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
