// Swiping: a finger drawn to one side over the item says which answer is better. Up and down stay the browser's.

const FAR_PX = 80;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// onhint("left" | "right" | ""): what letting go now would say; onswipe(side): it was let go
export const swipes = (area, { onhint, onswipe }) => {
  let start = null;
  const offset = (event) => ({ x: event.clientX - start.x, y: event.clientY - start.y });
  const sideOf = ({ x, y }) => (Math.abs(x) < FAR_PX || Math.abs(x) < 1.5 * Math.abs(y) ? "" : x < 0 ? "left" : "right");
  const end = () => {
    start = null;
    area.style.translate = "";
    onhint("");
  };
  area.addEventListener("pointerdown", (event) => {
    // with a mouse, drawing marks text; what has a purpose of its own keeps it
    if (event.pointerType === "mouse" || !event.isPrimary || event.target.closest("button, input, textarea, summary, .drag")) return;
    start = { x: event.clientX, y: event.clientY, id: event.pointerId };
  });
  area.addEventListener("pointermove", (event) => {
    if (start?.id !== event.pointerId) return;
    const moved = offset(event);
    if (!calm.matches && Math.abs(moved.x) > Math.abs(moved.y)) area.style.translate = `${moved.x / 4}px`;
    onhint(sideOf(moved));
  });
  area.addEventListener("pointerup", (event) => {
    if (start?.id !== event.pointerId) return;
    const side = sideOf(offset(event));
    end();
    if (side) onswipe(side);
  });
  // the browser took the finger for scrolling
  area.addEventListener("pointercancel", end);
};
