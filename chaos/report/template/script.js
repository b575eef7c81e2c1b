"use strict";
// Everything here is comfort: the page says all it has to say without it.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // One trial at a time.
  const chips = all(".chips button");
  const trials = all(".trial");
  const choose = (number) => {
    for (const chip of chips) chip.setAttribute("aria-selected", chip.dataset.trial === number);
    for (const trial of trials) trial.hidden = trial.dataset.number !== number;
    dispatchEvent(new Event("resize"));
  };
  for (const chip of chips) chip.addEventListener("click", () => choose(chip.dataset.trial));
  const first = chips.find((chip) => !chip.querySelector("small")) || chips[0]; // not a placebo
  if (first) choose(first.dataset.trial);

  // Light and dark.
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling);
      }
    });
  }

  // Titles as quick, readable tips.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  for (const one of all("[title]")) {
    if (one.tagName === "BUTTON") continue;
    one.dataset.tip = one.title;
    one.setAttribute("aria-label", one.title);
    one.removeAttribute("title");
  }
  document.addEventListener("pointermove", (event) => {
    const under = event.target.closest?.("[data-tip]");
    tip.hidden = !under;
    if (!under) return;
    tip.textContent = under.dataset.tip;
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const below = event.clientY + 18 + box.height < innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? event.clientY + 18 : event.clientY - box.height - 12}px`;
  });

  // Words for times, as the page prints them.
  const words = (ms, fine) => {
    const size = Math.abs(ms);
    const sign = ms < 0 ? "−" : "+";
    const places = Math.max(0, -Math.floor(Math.log10(fine)));
    if (size >= 1000) return `${sign}${(size / 1000).toFixed(Math.min(6, places + 3 - (fine >= 1000 ? 3 : 0)))} s`;
    return `${sign}${size.toFixed(places)} ms`;
  };
  const nice = (rough) => {
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= rough * 0.999);
  };

  for (const line of all(".timeline")) {
    const full = [Number(line.dataset.a), Number(line.dataset.w)];
    const storm = Number(line.dataset.storm);
    const drawn = all(".axis", line).map((axis) => axis.innerHTML);
    const bands = line.querySelector(".bands");
    const cursor = line.querySelector(".cursor");
    let [a, w] = full;

    const show = (start, width) => {
      w = Math.min(full[1], Math.max(0.05, width));
      a = Math.min(full[0] + full[1] - w, Math.max(full[0], start));
      line.style.setProperty("--a", a);
      line.style.setProperty("--w", w);
      for (const svg of all("[data-time]", line)) svg.setAttribute("viewBox", `${a} 0 ${w} 100`);
      const whole = w === full[1];
      all(".axis", line).forEach((axis, index) => {
        if (whole) {
          axis.innerHTML = drawn[index];
          return;
        }
        const step = nice(w / 7);
        axis.textContent = "";
        for (let k = Math.ceil(a / step); k * step <= a + w; k += 1) {
          const span = axis.appendChild(document.createElement("span"));
          span.textContent = k === 0 ? "fault" : words(k * step, step);
          span.style.setProperty("--t", k * step);
        }
      });
      fit();
    };

    // A length stands behind its bar, in it where there is no room behind, or nowhere.
    const fit = () => {
      for (const bar of all(".fall .bar:not(.censored)", line)) {
        const room = (bar.firstElementChild?.offsetWidth || 0) + 12;
        const edge = bar.parentElement.getBoundingClientRect().right;
        bar.classList.toggle("late", edge - bar.getBoundingClientRect().right < room);
      }
      for (const plot of all(".job .plot, .flow .plot", line)) {
        const edge = plot.getBoundingClientRect();
        const bars = all(".bar", plot).map((bar) => [bar, bar.getBoundingClientRect()]);
        bars.forEach(([bar, box]) => {
          const room = (bar.firstElementChild?.offsetWidth || 0) + 8;
          const later = bars.map(([, next]) => next.left).filter((left) => left > box.left);
          const behind = Math.min(edge.right, ...later) - box.right > room;
          const within = Math.min(edge.right, box.right) - Math.max(edge.left, box.left) > room;
          bar.classList.toggle("inner", !behind && within);
          bar.classList.toggle("tight", !behind && !within);
        });
      }
    };
    fit();
    addEventListener("resize", fit);

    const zoom = line.insertAdjacentElement("afterbegin", document.createElement("div"));
    zoom.className = "zoom";
    const near = Math.min(400, storm * 0.4);
    for (const [name, view] of [
      ["whole trial", full],
      ["first 10 ms", [-1, 12]],
      ["fault", [-near * 0.25, near * 1.25]],
      ["heal", [storm - 200, 1400]],
    ]) {
      const button = zoom.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => show(...view));
    }

    const at = (event) => {
      const box = bands.getBoundingClientRect();
      return a + (w * (event.clientX - box.left)) / box.width;
    };
    let from = null;
    let choice = null;
    line.addEventListener("pointerdown", (event) => {
      const box = bands.getBoundingClientRect();
      if (event.button || event.pointerType === "touch" || event.clientX < box.left) return;
      if (event.target.closest("button")) return;
      from = at(event);
      choice = bands.appendChild(document.createElement("i"));
      choice.className = "choice";
    });
    line.addEventListener("pointermove", (event) => {
      const now = at(event);
      cursor.hidden = now < a;
      cursor.style.setProperty("--t", now);
      cursor.dataset.at = words(now, Math.max(0.001, nice(w / 400)));
      if (choice) {
        choice.style.setProperty("--t", Math.min(from, now));
        choice.style.setProperty("--u", Math.abs(now - from));
      }
    });
    line.addEventListener("pointerleave", () => { cursor.hidden = true; });
    addEventListener("pointerup", (event) => {
      if (!choice) return;
      const now = at(event);
      choice.remove();
      choice = null;
      if (Math.abs(now - from) > w / 100) show(Math.min(from, now), Math.abs(now - from));
    });
    line.addEventListener("dblclick", () => show(...full));
    line.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      const middle = at(event);
      const factor = 1.0015 ** (event.deltaY || event.deltaX);
      show(middle - (middle - a) * factor, w * factor);
    }, { passive: false });
  }
})();
