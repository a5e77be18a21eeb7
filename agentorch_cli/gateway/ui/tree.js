// What is shown, as a value; and the little that makes the page equal to it.
//
// A view is a function from data to a tree of `h(...)`. `draw` changes of the page only what differs,
// so that the place of the focus, a selection and a scroll position outlive a redraw.
//
// Whatever agents wrote ends here, and only as the text of a text node or the value of an attribute
// that is on the list below: nothing is ever read as markup. Letters that would hide, move or turn
// other text are shown as their codes, as in the terminal.

const SVG = "http://www.w3.org/2000/svg";

const ATTRIBUTES = new Set([
  "alt",
  "autocomplete",
  "class",
  "colspan",
  "d",
  "datetime",
  "dir",
  "fill",
  "for",
  "height",
  "href",
  "id",
  "name",
  "placeholder",
  "points",
  "preserveAspectRatio",
  "role",
  "scope",
  "rx",
  "spellcheck",
  "src",
  "tabindex",
  "text-anchor",
  "title",
  "transform",
  "type",
  "vector-effect",
  "viewBox",
  "width",
  "x",
  "x1",
  "x2",
  "y",
  "y1",
  "y2",
  "r",
  "cx",
  "cy",
]);

const LONGEST = 20000; // characters of one text

// Controls, formats (bidi, zero-width, tags), surrogates, private use, line and paragraph separators,
// unassigned but for young emoji, and letters without a shape, which can carry hidden text.
const HIDDEN = new RegExp(
  "[\\p{Cc}\\p{Cf}\\p{Cs}\\p{Co}\\p{Zl}\\p{Zp}" +
    "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u2800\\u3164\\ufe00-\\ufe0f\\uffa0" +
    "\\u{e0100}-\\u{e01ef}]|(?![\\u{1f000}-\\u{1fbff}])\\p{Cn}",
  "gu",
);

/** The text with everything that does not show as itself shown as its code. Newlines stay. */
export function visible(value) {
  const text = String(value).replaceAll("\r\n", "\n");
  const rest = text.length - LONGEST;
  const shown = (rest > 0 ? text.slice(0, LONGEST) : text).replace(HIDDEN, code);
  return rest > 0 ? `${shown}… (${rest.toLocaleString("en")} more characters)` : shown;
}

function code(letter) {
  const point = letter.codePointAt(0);
  if (point === 10) return letter;
  return point < 0x100 ? `\\x${point.toString(16).padStart(2, "0")}` : `\\u{${point.toString(16)}}`;
}

/** An element of a tree. Children are elements, texts, numbers, lists of these, or nothing. */
export function h(tag, attributes, ...children) {
  return { tag, attributes: attributes || {}, children: listed(children) };
}

function listed(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "")
    .map((child) => (typeof child === "object" ? child : { text: visible(child) }));
}

const shown = new WeakMap(); // element -> the children that it shows

/** Make the children of an element equal to these. */
export function draw(parent, ...children) {
  reconcile(parent, listed(children));
}

function reconcile(parent, wanted) {
  const before = new Map((shown.get(parent) || []).map((old, index) => [keyOf(old, index), old]));
  const kept = wanted.map((item, index) => {
    const key = keyOf(item, index);
    const old = before.get(key);
    before.delete(key);
    return old;
  });
  for (const old of before.values()) old.node.remove();
  let next = parent.firstChild;
  wanted.forEach((item, index) => {
    const old = kept[index];
    item.node = old ? old.node : created(item, parent);
    if (item.tag) {
      arrange(item, old);
      reconcile(item.node, item.children);
    } else if (old && old.text !== item.text) {
      item.node.data = item.text;
    }
    if (item.node === next) next = next.nextSibling;
    else parent.insertBefore(item.node, next);
  });
  shown.set(parent, wanted);
}

function keyOf(item, index) {
  return item.tag ? `${item.tag} ${item.attributes.key ?? index}` : `text ${index}`;
}

function created(item, parent) {
  if (!item.tag) return document.createTextNode(item.text);
  const isShape = item.tag === "svg" || parent.namespaceURI === SVG;
  return isShape ? document.createElementNS(SVG, item.tag) : document.createElement(item.tag);
}

function arrange(item, old) {
  const before = old ? old.attributes : {};
  for (const name of Object.keys(before)) {
    if (!(name in item.attributes) && isAttribute(name)) item.node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(item.attributes)) {
    if (name === "on") listen(item.node, value);
    else if (name === "style") styled(item.node, value);
    else if (name === "value") valued(item.node, value);
    else if (isAttribute(name) && value !== before[name]) attributed(item.node, name, value);
  }
}

function isAttribute(name) {
  return ATTRIBUTES.has(name) || name.startsWith("aria-") || name.startsWith("data-");
}

function attributed(node, name, value) {
  const leaves = (name === "href" && !/^#/.test(value)) || (name === "src" && !/^blob:/.test(value));
  if (value === null || value === undefined || value === false || leaves) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : visible(value));
}

function styled(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
  }
}

function valued(node, value) {
  if (node !== document.activeElement && node.value !== value) node.value = value;
}

const listeners = new WeakMap(); // element -> what it does now, by kind of event

function listen(node, wanted) {
  const known = listeners.get(node) || {};
  for (const kind of Object.keys(wanted)) {
    if (!(kind in known)) node.addEventListener(kind, (event) => listeners.get(node)[kind]?.(event));
  }
  listeners.set(node, { ...known, ...wanted });
}
