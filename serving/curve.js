// Quality by number of evaluations as a small curve, on axes that all models share.

const WIDTH = 120, HEIGHT = 32, MARGIN = 4;

/** The spans of all curves together: evaluations in octaves, and values. */
export function axesOf(curves) {
  const points = curves.flatMap(pointsOf);
  const span = values => [Math.min(...values), Math.max(...values)];
  return { x: span(points.map(([x]) => x)), y: span(points.map(([, y]) => y)) };
}

/** Draws one curve, with a dot at these evaluations where there is a value for them. */
export function drawCurve(svg, curve, axes, nfe) {
  const place = ([x, y]) => [
    scale(x, axes.x, MARGIN, WIDTH - MARGIN), scale(y, axes.y, HEIGHT - MARGIN, MARGIN)];
  svg.querySelector("polyline").setAttribute("points", pointsOf(curve).map(place).join(" "));
  const dot = svg.querySelector("circle");
  dot.toggleAttribute("hidden", !(nfe in curve));
  if (!(nfe in curve)) return;
  const [cx, cy] = place([Math.log2(nfe), curve[nfe]]);
  dot.setAttribute("cx", cx);
  dot.setAttribute("cy", cy);
}

const pointsOf = curve => Object.entries(curve).map(([nfe, value]) => [Math.log2(nfe), value]);

function scale(value, [low, high], from, to) {
  return high > low ? from + (to - from) * (value - low) / (high - low) : (from + to) / 2;
}
