import type { Json, Usage } from "../model/types";

const WHOLE = new Intl.NumberFormat("en-GB");

export function count(value: number): string {
  return WHOLE.format(value);
}

export function plural(value: number, noun: string, many = `${noun}s`): string {
  return `${count(value)} ${value === 1 ? noun : many}`;
}

export function duration(seconds: number): string {
  if (seconds < 0.0095) return `${Math.max(0, seconds * 1000).toFixed(0)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function clock(at: number): string {
  return new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function dateTime(at: number): string {
  const date = new Date(at * 1000);
  const day = `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;
  return `${day} ${clock(at)}`;
}

export function ago(at: number, now: number): string {
  const seconds = now - at;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export function money(value: number): string {
  return value >= 1 ? value.toFixed(2) : value.toPrecision(2);
}

export function bytes(value: number): string {
  if (value < 1000) return `${value} B`;
  return value < 1e6 ? `${(value / 1000).toFixed(1)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}

export function score(value: number): string {
  return value.toFixed(2);
}

export function percent(value: number): string {
  return `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`;
}

export function tokens(usage: Usage): string {
  return `${count(usage.prompt_tokens ?? 0)} tokens in, ${count(usage.output_tokens ?? 0)} out`;
}

/** A value as text: a string as it is, anything else as JSON. */
export function valueText(value: Json | undefined): string {
  return typeof value === "string" ? value : JSON.stringify(value ?? null, null, 2);
}

export function compactJson(value: Json | undefined): string {
  return typeof value === "string" ? value : JSON.stringify(value ?? null);
}
