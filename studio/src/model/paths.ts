/** Paths of nodes, as `orchestra/core/paths.py` defines them: `summaries[3]`, `refine#2/draft`, `solve@1/s2`, `a?1/b`. */

const LAST_STEP = /(\[\d+\]|[#@?]\d+|\/[^/[#@?]+)$/;
const NUMBERS = /\[\d+\]|[#@?]\d+/g;

export function parentPath(path: string): string {
  const found = LAST_STEP.exec(path);
  return found ? path.slice(0, found.index) : "";
}

/** The path in the workflow: without elements and turns. */
export function workflowPath(path: string): string {
  return path.replace(NUMBERS, "");
}

/** The last step, for display below its parent. */
export function lastStep(path: string): string {
  const found = LAST_STEP.exec(path);
  return found ? found[0].replace(/^\//, "") : path;
}

/** The name of a node without elements and turns: `draft` of `refine#2/draft[3]`. */
export function nodeName(path: string): string {
  const plain = workflowPath(path);
  return plain.slice(plain.lastIndexOf("/") + 1);
}

/** The prefix of the names around a node: `a[1]/` of `a[1]/b#2`, with the turn kept for names inside it. */
export function scopeOf(path: string): string {
  const cut = path.lastIndexOf("/");
  return cut < 0 ? "" : path.slice(0, cut + 1);
}
