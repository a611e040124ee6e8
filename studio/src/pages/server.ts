import { createContext, useContext } from "react";
import type { Json, Usage } from "../model/types";

export interface ServerInfo {
  name: string;
  version: string;
  auth: "off" | "required";
  tenant: string;
  scopes: string[];
  subject: string;
}

export const ServerContext = createContext<ServerInfo | null>(null);

/** Whether the credential permits something; the server decides in the end. */
export function useMay(scope: "read" | "run" | "answer" | "admin"): boolean {
  const server = useContext(ServerContext);
  return server !== null && (server.auth === "off" || server.scopes.includes("admin") || server.scopes.includes(scope));
}

export interface Page<T> {
  items: T[];
  next: string | null;
}

export interface RunItem {
  id: string;
  workflow: string;
  status: string;
  started: number;
  finished: number | null;
  seconds: number | null;
  nodes: number;
  usage: Usage;
  label: string;
  tags: Record<string, string>;
  parent: string;
  due: number;
  holder: string;
}

export interface RunAnswer {
  id: string;
  status: string;
  changes?: { node: string; reason: string }[];
}

export interface WorkflowItem {
  name: string;
  description: string;
  inputs: Record<string, string>;
  output: string;
  own: boolean;
  error: string;
}

export interface Schema {
  type?: string | string[];
  title?: string;
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  enum?: Json[];
  const?: Json;
  anyOf?: Schema[];
  oneOf?: Schema[];
  default?: Json;
  format?: string;
  $ref?: string;
  $defs?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  [key: string]: unknown;
}

export interface WorkflowDetail extends WorkflowItem {
  label: string;
  input_schema: Schema;
  output_schema: Schema;
  agents: string[];
  tools: string[];
  asks: boolean;
  effects: boolean;
}
