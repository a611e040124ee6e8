import { useEffect, useState } from "react";
import { bytes, plural } from "../lib/format";
import { visible } from "../lib/visible";
import { Text, Value } from "./Value";
import type { Json } from "../model/types";

export interface Blob {
  text: string;
  size: number;
}
export type BlobLoader = (digest: string) => Promise<Blob | null>;

/** The exact bytes that a model was sent and that it answered, and the same as a conversation. */
export function Exchange({ sent, received, load }: { sent: string; received: string; load: BlobLoader }) {
  const [raw, setRaw] = useState(false);
  const request = useBlob(sent, load);
  const response = useBlob(received, load);
  return (
    <div className="exchange">
      <div className="exchange-bar" role="group" aria-label="form of prompt and response">
        <button type="button" className="segment" aria-pressed={!raw} onClick={() => setRaw(false)}>
          Conversation
        </button>
        <button type="button" className="segment" aria-pressed={raw} onClick={() => setRaw(true)}>
          Exact bytes
        </button>
      </div>
      <Side title="Prompt" blob={request} raw={raw} digest={sent} />
      <Side title="Response" blob={response} raw={raw} digest={received} />
    </div>
  );
}

type BlobState = Blob | "loading" | "missing" | "failed" | "none";

function useBlob(digest: string, load: BlobLoader): BlobState {
  const [state, setState] = useState<BlobState>(digest ? "loading" : "none");
  useEffect(() => {
    if (!digest) {
      setState("none");
      return;
    }
    let gone = false;
    setState("loading");
    load(digest).then(
      (blob) => !gone && setState(blob ?? "missing"),
      () => !gone && setState("failed"),
    );
    return () => {
      gone = true;
    };
  }, [digest, load]);
  return state;
}

function Side({ title, blob, raw, digest }: { title: string; blob: BlobState; raw: boolean; digest: string }) {
  if (blob === "none") return null;
  return (
    <section className="side" aria-label={title}>
      <h4>
        {title}
        {typeof blob === "object" && <span className="soft"> {bytes(blob.size)}</span>}
        <span className="soft mono digest" title="digest of the exact bytes">
          {digest.slice(0, 12)}
        </span>
      </h4>
      {blob === "loading" && <p className="soft">loading…</p>}
      {blob === "missing" && <p className="soft">These bytes are not stored here. They may have been deleted, or left out of this file for its size.</p>}
      {blob === "failed" && <p className="soft">These bytes could not be loaded. Check the connection to the server, and open the node again.</p>}
      {typeof blob === "object" && (raw ? <pre className="raw">{visible(blob.text)}</pre> : <Conversation text={blob.text} />)}
      {typeof blob === "object" && blob.text.length < blob.size * 0.6 && (
        <p className="soft">cut; orchestra runs show RUN NODE --prompt prints all of it</p>
      )}
    </section>
  );
}

function Conversation({ text }: { text: string }) {
  const parsed = parse(text);
  if (parsed === null) return <Text text={text} mono />;
  const { messages, rest } = parsed;
  return (
    <>
      {messages.map((message, index) => (
        <div className={`message role-${message.role}`} key={index}>
          <div className="message-role">{visible(message.role)}</div>
          <Text text={message.content} mono most={3000} />
        </div>
      ))}
      {Object.keys(rest).length > 0 && (
        <details className="plain">
          <summary>{plural(Object.keys(rest).length, "other field")}</summary>
          <Value value={rest} open={1} />
        </details>
      )}
    </>
  );
}

interface Message {
  role: string;
  content: string;
}

function parse(text: string): { messages: Message[]; rest: { [key: string]: Json } } | null {
  let body: Json;
  try {
    body = JSON.parse(text) as Json;
  } catch {
    return null;
  }
  if (body === null || typeof body !== "object" || Array.isArray(body)) return null;
  const { messages, choices, prompt, ...rest } = body;
  const found: Message[] = [];
  const add = (one: Json | undefined, role: string): void => {
    if (one === null || typeof one !== "object" || Array.isArray(one)) return;
    const content = one.content;
    const shown = typeof content === "string" ? content : content == null ? "" : JSON.stringify(content, null, 2);
    const calls = one.tool_calls ? `\n${JSON.stringify(one.tool_calls, null, 2)}` : "";
    found.push({ role: typeof one.role === "string" ? one.role : role, content: shown + calls });
  };
  if (Array.isArray(messages)) for (const one of messages) add(one, "user");
  if (typeof prompt === "string") found.push({ role: "prompt", content: prompt });
  if (Array.isArray(choices))
    for (const one of choices) {
      if (one === null || typeof one !== "object" || Array.isArray(one)) continue;
      if (one.message) add(one.message, "assistant");
      else if (typeof one.text === "string") found.push({ role: "completion", content: one.text });
      if (typeof one.finish_reason === "string") rest.finish_reason = one.finish_reason;
    }
  return found.length > 0 ? { messages: found, rest } : null;
}
