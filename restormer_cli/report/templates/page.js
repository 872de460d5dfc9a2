"use strict";
(() => {
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- Theme: as the system, light, dark -------------------------------------------------------------------
const theme = document.querySelector(".theme");
theme.addEventListener("click", () => {
  const root = document.documentElement, order = ["", "light", "dark"];
  const next = order[(order.indexOf(root.dataset.theme ?? "") + 1) % 3];
  if (next) root.dataset.theme = next; else delete root.dataset.theme;
  theme.setAttribute("aria-label", "Theme: " + (next || "as the system"));
});

// --- Sliders: a range for keys and screen readers, pointers on the whole picture -----------------------------
const split = (slider, percent) => {
  const range = slider.querySelector("input");
  range.value = percent;
  slider.style.setProperty("--split", range.value + "%");
  range.setAttribute("aria-valuetext", range.value + " % " + slider.dataset.before);
};
const follow = (slider, event) => {
  const box = slider.getBoundingClientRect();
  split(slider, 100 * (event.clientX - box.left) / box.width);
};
document.addEventListener("input", event => {
  const slider = event.target.closest(".slider");
  if (slider) split(slider, event.target.value);
});
let held = null;
document.addEventListener("pointerdown", event => {
  const slider = event.target.closest(".slider");
  if (!slider || event.button || event.target.closest("button")) return;
  // A finger may be about to scroll: the divider waits until it goes sideways, or lifts where it came down.
  const waits = event.pointerType === "touch";
  held = { slider, waits, id: event.pointerId, x: event.clientX, y: event.clientY };
  if (!waits) { follow(slider, event); event.preventDefault(); }
  slider.querySelector("input").focus({ preventScroll: true, focusVisible: false });
});
document.addEventListener("pointermove", event => {
  if (held?.id !== event.pointerId) return;
  const [dx, dy] = [Math.abs(event.clientX - held.x), Math.abs(event.clientY - held.y)];
  if (held.waits && dx > 5 && dx > dy) held.waits = false;
  if (!held.waits) follow(held.slider, event);
});
document.addEventListener("pointerup", event => {
  if (held?.id !== event.pointerId) return;
  if (!held.waits || Math.hypot(event.clientX - held.x, event.clientY - held.y) < 5) follow(held.slider, event);
  held = null;
});
document.addEventListener("pointercancel", () => { held = null; });

// --- Knobs: what the command's flags of the same names would keep (engine/control.py), blended from three layers -----
const knobs = document.querySelector(".knobs");
if (knobs) {
  const inputs = all("input", knobs), code = knobs.querySelector("code");
  const values = () => Object.fromEntries(inputs.map(input => [input.name, +input.value]));
  const pixels = async source => {
    const image = new Image();
    image.setAttribute("src", source);
    await image.decode();
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    return { canvas, pen, data: pen.getImageData(0, 0, canvas.width, canvas.height) };
  };
  const blend = async (before, after, detail, { strength, luma, chroma, detail: back }) => {
    const [left, right, layer] = await Promise.all([before, after, detail].map(pixels));
    const [b, a, d] = [left.data.data, right.data.data, layer.data.data];
    for (let i = 0; i < a.length; i += 4) {
      const r = a[i] - b[i], g = a[i + 1] - b[i + 1], u = a[i + 2] - b[i + 2];
      const y = 0.299 * r + 0.587 * g + 0.114 * u, gray = luma * (y - back * (d[i] - 128) / 2) - chroma * y;
      a[i] = b[i] + strength * (gray + chroma * r);
      a[i + 1] = b[i + 1] + strength * (gray + chroma * g);
      a[i + 2] = b[i + 2] + strength * (gray + chroma * u);
    }
    right.pen.putImageData(right.data, 0, 0);
    return right.canvas.toDataURL("image/png");
  };
  let turn = 0;
  const apply = async () => {
    const mine = ++turn, now = values(), usual = inputs.every(input => input.value === input.dataset.usual);
    for (const slider of all(".slider[data-detail]")) {
      const cut = slider.querySelector("template");
      for (const [root, place] of [[slider, slider], ...(cut ? [[cut, cut.content]] : [])]) {
        const image = place.querySelector("img.after");
        image.dataset.restored ??= image.src;
        const source = usual ? image.dataset.restored
          : await blend(place.querySelector("img.before").src, image.dataset.restored, root.dataset.detail, now);
        if (mine !== turn) return;  // moved again
        image.setAttribute("src", source);
        if (place === slider) await image.decode();  // the crop's is in a template, which decodes nothing
      }
    }
    knobs.dataset.shown = JSON.stringify(now);
  };
  const say = () => {
    for (const input of inputs) input.nextElementSibling.value = input.value;
    const changed = inputs.filter(input => input.value !== input.dataset.usual);
    code.textContent = [knobs.dataset.command, ...changed.map(input => `--${input.name} ${input.value}`)].join(" ");
  };
  knobs.addEventListener("input", say);
  knobs.addEventListener("change", () => { say(); apply(); });
  knobs.querySelector(".usual").addEventListener("click", () => {
    for (const input of inputs) input.value = input.dataset.usual;
    say();
    apply();
  });
  knobs.querySelector(".copy").addEventListener("click", async event => {
    const button = event.target, range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    const copied = document.execCommand("copy");  // a page from a file may not ask for the clipboard otherwise
    button.textContent = copied ? "Copied" : "Press Ctrl-C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  say();
}

// --- The viewer: both layers show one world, in picture pixels, at one scale and place ------------------------
const viewer = document.querySelector(".viewer");
if (!viewer) return;
const stage = viewer.querySelector(".stage"), edge = stage.querySelector(".edge");
const worlds = all(".world", stage), sliders = all(".slider");
let view = null;  // slider, width, height, crop, scale (CSS pixels per picture pixel), x, y (picture pixel in the middle)
const actual = () => 1 / window.devicePixelRatio;
const snap = x => Math.round(x * window.devicePixelRatio) / window.devicePixelRatio;  // to whole screen pixels
const fitting = () => Math.min(actual(), stage.clientWidth / view.width, stage.clientHeight / view.height);

const draw = () => {
  const { width, height, scale, crop } = view;
  const w = snap(width * scale), h = snap(height * scale);
  const place = (length, room, middle) =>
    length <= room ? snap((room - length) / 2) : snap(clamp(room / 2 - middle * scale, room - length, 0));
  const left = place(w, stage.clientWidth, view.x), top = place(h, stage.clientHeight, view.y);
  for (const world of worlds) {
    Object.assign(world.style, { left: left + "px", top: top + "px", width: w + "px", height: h + "px" });
    world.classList.toggle("large", scale >= 2 * actual());
    const [whole, sharp] = world.children;
    Object.assign(whole.style, { left: 0, top: 0, width: w + "px", height: h + "px" });
    if (sharp) Object.assign(sharp.style, { left: crop.x * scale + "px", top: crop.y * scale + "px",
      width: crop.width * scale + "px", height: crop.height * scale + "px" });
  }
  const percent = Math.round(100 * scale / actual());
  viewer.querySelector(".scale").value = percent + " %";
};
const divide = percent => {
  view.split = clamp(percent, 0, 100);
  stage.style.setProperty("--split", view.split + "%");
  edge.setAttribute("aria-valuenow", Math.round(view.split));
};
const zoom = (scale, clientX, clientY) => {
  const box = stage.getBoundingClientRect();
  const dx = (clientX ?? box.left + box.width / 2) - box.left - box.width / 2;
  const dy = (clientY ?? box.top + box.height / 2) - box.top - box.height / 2;
  const next = clamp(scale, Math.min(fitting(), actual()), 16 * actual());
  settle();
  view.x += dx / view.scale - dx / next;
  view.y += dy / view.scale - dy / next;
  view.scale = next;
  draw();
};
// What is in the middle of the window after clamping, so that panning starts from what is seen.
const settle = () => {
  const half = (room, length) => Math.min(room / view.scale, length) / 2;
  view.x = clamp(view.x, half(stage.clientWidth, view.width), view.width - half(stage.clientWidth, view.width));
  view.y = clamp(view.y, half(stage.clientHeight, view.height), view.height - half(stage.clientHeight, view.height));
};
const open = (slider, at) => {
  const [width, height] = [+slider.dataset.width, +slider.dataset.height];
  const cut = slider.querySelector("template");
  const crop = cut && { x: +cut.dataset.x, y: +cut.dataset.y, width: +cut.dataset.width, height: +cut.dataset.height };
  const middle = crop ? { x: crop.x + crop.width / 2, y: crop.y + crop.height / 2 } : { x: width / 2, y: height / 2 };
  view = { slider, width, height, crop, scale: actual(), ...middle, ...(crop ? {} : at) };
  for (const side of ["before", "after"]) {
    const images = [slider.querySelector("img." + side), cut?.content.querySelector("img." + side)];
    stage.querySelector(".layer." + side + " .world").replaceChildren(...images.filter(Boolean).map(image => {
      const copy = image.cloneNode();
      copy.draggable = false;
      return copy;
    }));
  }
  viewer.querySelector(".name bdi").textContent = slider.dataset.name;
  viewer.querySelector(".cropped").hidden = !crop;
  stage.querySelector(".left").textContent = slider.dataset.before;
  stage.querySelector(".right").textContent = slider.dataset.after;
  if (!viewer.open) viewer.showModal();
  divide(+slider.querySelector("input").value);
  draw();
};
const step = by => open(sliders[(sliders.indexOf(view.slider) + by + sliders.length) % sliders.length]);
const actions = {
  fit: () => zoom(fitting()), full: () => open(view.slider), previous: () => step(-1), next: () => step(1),
  close: () => viewer.close(),
};

document.addEventListener("click", event => {
  const slider = event.target.closest(".slider");
  if (slider && event.target.closest(".zoom")) open(slider);
});
document.addEventListener("dblclick", event => {
  const slider = event.target.closest(".slider");
  if (!slider || event.target.closest("button")) return;
  const box = slider.getBoundingClientRect();
  open(slider, { x: slider.dataset.width * (event.clientX - box.left) / box.width,
    y: slider.dataset.height * (event.clientY - box.top) / box.height });
});
viewer.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button) actions[button.dataset.do]();
});
viewer.addEventListener("close", () => {
  split(view.slider, view.split);
  for (const world of worlds) world.replaceChildren();
  view.slider.querySelector("input").focus();
});
stage.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(view.scale * Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
}, { passive: false });

const fingers = new Map();
stage.addEventListener("pointerdown", event => {
  if (event.button) return;
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY, edge: event.target === edge });
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", event => {
  const finger = fingers.get(event.pointerId);
  if (!finger) return;
  const others = [...fingers.entries()].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
  const box = stage.getBoundingClientRect();
  if (finger.edge) divide(100 * (event.clientX - box.left) / box.width);
  else {
    settle();
    view.x -= (event.clientX - finger.x) / view.scale / (others.length + 1);
    view.y -= (event.clientY - finger.y) / view.scale / (others.length + 1);
    if (others.length === 1 && !others[0].edge) {
      const apart = point => Math.hypot(point.x - others[0].x, point.y - others[0].y) || 1;
      const here = { x: event.clientX, y: event.clientY };
      zoom(view.scale * apart(here) / apart(finger), (here.x + others[0].x) / 2, (here.y + others[0].y) / 2);
    }
    draw();
  }
  Object.assign(finger, { x: event.clientX, y: event.clientY });
});
for (const kind of ["pointerup", "pointercancel"])
  stage.addEventListener(kind, event => fingers.delete(event.pointerId));
viewer.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    ArrowLeft: () => divide(view.split - (event.shiftKey ? 10 : 1)), ArrowRight: () => divide(view.split + (event.shiftKey ? 10 : 1)),
    Home: () => divide(0), End: () => divide(100),
    "+": () => zoom(view.scale * 1.5), "=": () => zoom(view.scale * 1.5), "-": () => zoom(view.scale / 1.5),
    f: actions.fit, 0: actions.fit, 1: actions.full, n: actions.next, p: actions.previous,
  };
  if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
});
window.addEventListener("resize", () => { if (viewer.open) draw(); });
})();
