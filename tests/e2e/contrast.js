// Returns the least contrast between a text of the page and its background (WCAG 2.1, 1.4.3), as
// "4.52 of <the text>".
function leastContrast() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const paint = color => { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); };
  const pixel = () => [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  const luminance = rgb => {
    const [r, g, b] = rgb.map(part => part / 255).map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  // The colour of a page without one. It follows the page's colour scheme.
  const blank = document.createElement("div");
  blank.style.backgroundColor = "Canvas";
  document.body.append(blank);
  const page = getComputedStyle(blank).backgroundColor;
  let least = [Infinity, ""];
  const measure = (text, parent, color) => {
    const parents = [];
    for (let one = parent; one; one = one.parentElement) parents.unshift(getComputedStyle(one));
    paint(page);
    for (const style of parents) paint(style.backgroundColor);
    const behind = pixel();
    canvas.globalAlpha = parents.reduce((product, style) => product * style.opacity, 1);
    paint(color);
    canvas.globalAlpha = 1;
    const [low, high] = [luminance(behind), luminance(pixel())].sort((a, b) => a - b);
    const contrast = (high + .05) / (low + .05);
    if (contrast < least[0]) least = [contrast, text];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), parent = texts.currentNode.parentElement;
    if (!text || parent.closest("script, style") || !parent.checkVisibility()) continue;
    measure(text, parent, getComputedStyle(parent).color);
  }
  for (const input of document.querySelectorAll("[placeholder]"))
    measure(input.placeholder, input, getComputedStyle(input, "::placeholder").color);
  return `${least[0].toFixed(2)} of ${least[1]}`;
}
