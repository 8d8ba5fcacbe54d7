// The names of a frame's pictures, its views, as in request.py.

const TITLES = {
  filled: "filled, no network", accumulated: "carried, no network", error: "error × 4",
};
const MODEL_PREFIX = "model:";

export const viewOfModel = (name) => MODEL_PREFIX + name;
export const isOfModel = (view) => view.startsWith(MODEL_PREFIX);
export const title = (view) => TITLES[view] ?? view.replace(MODEL_PREFIX, "");
