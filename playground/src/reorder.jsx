// Tabs that can be put in another order by dragging, in the place of framer-motion's `Reorder`, which brings an animation
// library of 35 KB. vite.config.mjs does so. What GraphiQL uses of it is here, and nothing else.
import { createContext, useContext, useRef } from "react";

/** A press that moves no farther is a click. */
const SLACK_PX = 6;

const Order = createContext({ values: [], onReorder() {} });

function Group({ values, onReorder, axis: _, children, ...props }) {
  return (
    <Order.Provider value={{ values, onReorder }}>
      <ul {...props}>{children}</ul>
    </Order.Provider>
  );
}

/** `value` is one of the group's values. While it is dragged it takes the place of the one it is held over. */
function Item({ value, dragElastic: _, dragConstraints: __, children, ...props }) {
  // While it is dragged the page is drawn anew, with other values in the place of these.
  const latest = useRef(null);
  latest.current = { ...useContext(Order), value };
  function press(down) {
    if (down.button !== 0 || down.pointerType === "touch") return;
    const own = down.currentTarget;
    let isDragged = false;
    const move = (event) => {
      isDragged ||= Math.abs(event.clientX - down.clientX) > SLACK_PX;
      if (!isDragged) return;
      own.dataset.dragged = "";
      const next = moved(latest.current, own, event.clientX);
      if (next) latest.current.onReorder(next);
    };
    const end = () => {
      window.removeEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) window.removeEventListener(name, end);
      delete own.dataset.dragged;
    };
    window.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, end);
  }
  return (
    <li {...props} onPointerDown={press}>
      {children}
    </li>
  );
}

/** The values with this one where the pointer is; `null` where nothing changes. */
function moved({ values, value }, own, x) {
  const items = [...own.parentElement.children];
  const from = values.indexOf(value);
  const to = items.findIndex((item) => {
    const { left, right } = item.getBoundingClientRect();
    return left <= x && x < right;
  });
  // Over a wider neighbour the two would change places for ever: only beyond its middle is it passed.
  if (to === -1 || to === from || from === -1) return null;
  const { left, width } = items[to].getBoundingClientRect();
  if (to > from ? x < left + width / 2 : x > left + width / 2) return null;
  const next = values.filter((one) => one !== value);
  next.splice(to, 0, value);
  return next;
}

export const Reorder = { Group, Item };
