// Points in two dimensions, one scale for both. Hover or arrow keys name a point. Hover, click or Enter plays its clip.
const NS = "http://www.w3.org/2000/svg";
const WIDTH = 640, HEIGHT = 420, EDGE = 26;
const SHAPES = {
  circle: "M-1,0a1,1 0 1,0 2,0a1,1 0 1,0 -2,0",
  square: "M-.9,-.9h1.8v1.8h-1.8z",
  triangle: "M0,-1.1L1,.8H-1z",
  diamond: "M0,-1.2L1.1,0L0,1.2L-1.1,0z",
  cross: "M-.4,-1.1h.8v.7h.7v.8h-.7v.7h-.8v-.7h-.7v-.8h.7z",
  down: "M0,1.1L1,-.8H-1z",
  star: "M0,-1.5L.4,-.5L1.45,-.45L.6,.2L.9,1.2L0,.65L-.9,1.2L-.6,.2L-1.45,-.45L-.4,-.5z",
};

function node(name, attributes, parent) {
  const element = document.createElementNS(NS, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  parent && parent.append(element);
  return element;
}

// Labels one after the other, each where it covers none before it: right, left, above, below, farther and farther.
function place(labels) {
  const done = labels.map(({ x, y }) => ({ x: x - 9, y: y - 9, w: 18, h: 18 }));
  const hits = (box) => done.some((b) => box.x < b.x + b.w && b.x < box.x + box.w && box.y < b.y + b.h && b.y < box.y + box.h);
  for (const { element, x, y } of labels) {
    const w = element.getComputedTextLength() + 4, h = 15, spots = [];
    for (let reach = 10; reach < 90; reach += 10)
      spots.push([x + reach, y - h / 2], [x - reach - w, y - h / 2], [x - w / 2, y - reach - h + 4], [x - w / 2, y + reach - 4],
        [x + reach, y - reach - h / 2], [x - reach - w, y - reach - h / 2], [x + reach, y + reach - h / 2], [x - reach - w, y + reach - h / 2]);
    const boxes = spots.map(([a, b]) => ({ x: a, y: b, w, h }));
    const inside = boxes.filter((b) => b.x > 0 && b.x + w < WIDTH && b.y > 0 && b.y + h < HEIGHT);
    const box = inside.find((b) => !hits(b)) || boxes[0];
    done.push(box);
    element.setAttribute("x", box.x + 2);
    element.setAttribute("y", box.y + 12);
  }
}

function render({ model, el }) {
  el.classList.add("palmkit-scatter");
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "application" });
  const status = document.createElement("div");
  status.setAttribute("role", "status");
  el.append(svg, status);
  const sounds = {}, player = new Audio();
  let current = -1, wanted = -1, shown = [];

  function play(n) {
    wanted = model.get("points")[n].clip;
    if (wanted < 0) return;
    if (sounds[wanted]) start();
    else model.send({ clip: wanted });
  }
  function start() {
    player.src = sounds[wanted];
    player.play().then(() => el.setAttribute("data-played", wanted), () => {
      status.textContent += " (click once into the map; before that, browsers let nothing sound)";
    });
  }
  model.on("msg:custom", (message, buffers) => {
    if (message.forget) {
      for (const key in sounds) delete sounds[key];
      current = wanted = -1;
    } else {
      sounds[message.clip] = URL.createObjectURL(new Blob([buffers[0]], { type: message.type }));
      if (message.clip === wanted) start();
    }
  });
  function choose(n, sound) {
    shown[current] && shown[current].classList.remove("current");
    current = n;
    shown[n].classList.add("current");
    status.textContent = model.get("points")[n].text;
    if (sound) play(n);
  }
  function draw() {
    const points = model.get("points"), [left, right, low, high] = model.get("extent");
    const scale = Math.min((WIDTH - 2 * EDGE) / (right - left || 1), (HEIGHT - 2 * EDGE) / (high - low || 1));
    const X = (x) => WIDTH / 2 + scale * (x - (left + right) / 2);
    const Y = (y) => HEIGHT / 2 - scale * (y - (low + high) / 2);
    svg.replaceChildren();
    svg.setAttribute("aria-label", `${model.get("label")}. Arrow keys go from point to point, Enter plays a clip.`);
    if (model.get("trail").length)
      node("polyline", { points: model.get("trail").map(([x, y]) => `${X(x)},${Y(y)}`).join(" "), class: "trail" }, svg);
    shown = points.map((point, n) => {
      const mark = node("path", { d: SHAPES[point.shape], fill: point.color, class: "point" }, svg);
      mark.setAttribute("transform", `translate(${X(point.x)},${Y(point.y)}) scale(${point.size})`);
      mark.setAttribute("opacity", point.faint ? 0.3 : 0.9);
      // Not pointerenter, which a point that is drawn anew under a mouse at rest has too.
      mark.addEventListener("pointermove", () => current !== n && choose(n, model.get("hover")));
      mark.addEventListener("click", () => choose(n, true));
      return mark;
    });
    const labels = points.filter((point) => point.name).map((point) => {
      const element = node("text", { class: "name" }, svg);
      element.textContent = point.name;
      return { element, x: X(point.x), y: Y(point.y) };
    });
    place(labels);
    shown[current] ? shown[current].classList.add("current") : (current = -1);
    status.textContent = current < 0 ? "" : points[current].text;
  }
  svg.addEventListener("keydown", (event) => {
    const points = model.get("points"), steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === "Enter" || event.key === " ") current >= 0 && play(current);
    else if (event.key === "Escape") player.pause();
    else if (!steps[event.key] || !points.length) return;
    else {
      const [dx, dy] = steps[event.key], from = points[current];
      const [left, right, low, high] = model.get("extent");
      const cost = (to) => {
        const x = (to.x - from.x) / (right - left), y = (to.y - from.y) / (high - low), ahead = x * dx + y * dy;
        return ahead > 1e-9 ? ahead + 3 * Math.abs(x * dy + y * dx) : Infinity;
      };
      const costs = from ? points.map(cost) : [0];
      const best = costs.indexOf(Math.min(...costs));
      if (costs[best] < Infinity) choose(best, false);
    }
    event.preventDefault();
    event.stopPropagation(); // the notebook has these keys too
  });
  model.on("change:points", draw);
  // A label's length is known only once it is on the page.
  requestAnimationFrame(draw);
  return () => player.pause();
}

export default { render };
