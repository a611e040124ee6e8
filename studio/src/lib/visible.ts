/** Text of strangers for display: control, bidi, invisible and private characters are spelled out. */

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

export function visible(text: string): string {
  return text.replace(HIDDEN, (char) => {
    if (char === "\n" || char === "\t") return char;
    const code = char.codePointAt(0) ?? 0;
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

/** Positions in events count characters as Python does; JavaScript counts UTF-16 units. */
export function sliceCharacters(text: string, start: number, end?: number): string {
  // eslint-disable-next-line no-control-regex
  if (/^[\u0000-\uffff]*$/.test(text) && !/[\ud800-\udfff]/.test(text)) return text.slice(start, end);
  return Array.from(text).slice(start, end).join("");
}

export function unitIndex(text: string, characters: number): number {
  if (!/[\ud800-\udfff]/.test(text)) return characters;
  return sliceCharacters(text, 0, characters).length;
}

export function shorten(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

export function oneLine(text: string, most = 200): string {
  return visible(shorten(text, most * 2).replace(/\s+/g, " ").trim().slice(0, most));
}
