import { useId, useState } from "react";
import { visible } from "../lib/visible";
import type { Json } from "../model/types";
import type { Schema } from "../pages/server";
import { Icon } from "./Icon";

/** The schema behind references, and the part that is not null. */
export function resolve(schema: Schema | undefined, root: Schema): { schema: Schema; nullable: boolean } {
  let here: Schema = schema ?? {};
  let nullable = false;
  for (let turn = 0; turn < 20; turn++) {
    if (here.$ref) {
      const name = /^#\/\$defs\/(.+)$/.exec(here.$ref)?.[1];
      here = (name && root.$defs?.[name]) || {};
      continue;
    }
    const options = here.anyOf ?? here.oneOf;
    if (options) {
      const rest = options.filter((one) => one.type !== "null");
      if (rest.length < options.length) nullable = true;
      if (rest.length === 1) {
        here = { ...rest[0], ...(here.description ? { description: here.description } : {}) };
        continue;
      }
    }
    if (Array.isArray(here.type)) {
      nullable ||= here.type.includes("null");
      const rest = here.type.filter((one) => one !== "null");
      if (rest.length === 1) here = { ...here, type: rest[0]! };
    }
    break;
  }
  return { schema: here, nullable };
}

export function initialValue(schema: Schema | undefined, root: Schema): Json {
  const { schema: plain, nullable } = resolve(schema, root);
  if (schema?.default !== undefined) return schema.default;
  if (plain.default !== undefined) return plain.default;
  if (nullable) return null;
  if (plain.enum) return plain.enum[0] ?? null;
  switch (plain.type) {
    case "string":
      return "";
    case "number":
    case "integer":
      return 0;
    case "boolean":
      return false;
    case "array":
      return [];
    case "object": {
      const value: { [key: string]: Json } = {};
      for (const [name, property] of Object.entries(plain.properties ?? {})) if (plain.required?.includes(name)) value[name] = initialValue(property, root);
      return value;
    }
    default:
      return null;
  }
}

function isDocument(schema: Schema): boolean {
  const names = Object.keys(schema.properties ?? {});
  return schema.type === "object" && names.includes("source") && names.includes("text");
}

interface FieldProps {
  name: string;
  schema: Schema | undefined;
  root: Schema;
  value: Json | undefined;
  change: (value: Json | undefined) => void;
  required: boolean;
}

/** A form for the inputs of a workflow. */
export function SchemaForm({ schema, value, change }: { schema: Schema; value: { [key: string]: Json }; change: (value: { [key: string]: Json }) => void }) {
  const { schema: plain } = resolve(schema, schema);
  const names = Object.entries(plain.properties ?? {});
  if (names.length === 0) return <p className="soft">This workflow has no inputs.</p>;
  return (
    <>
      {names.map(([name, property]) => (
        <Field
          key={name}
          name={name}
          schema={property}
          root={schema}
          value={value[name]}
          required={plain.required?.includes(name) ?? false}
          change={(next) => {
            const rest = { ...value };
            if (next === undefined) delete rest[name];
            else rest[name] = next;
            change(rest);
          }}
        />
      ))}
    </>
  );
}

function Field(props: FieldProps) {
  const { name, schema, root, required } = props;
  const id = useId();
  const { schema: plain } = resolve(schema, root);
  const about = schema?.description ?? plain.description;
  return (
    <div className="field">
      <label htmlFor={id}>
        <span className="mono">{visible(name)}</span>
        {!required && <span className="soft"> optional</span>}
      </label>
      {about && (
        <p className="soft field-about" id={`${id}-about`}>
          {visible(about)}
        </p>
      )}
      <Control {...props} id={id} plain={plain} {...(about ? { describedBy: `${id}-about` } : {})} />
    </div>
  );
}

function Control({ id, plain, root, value, change, required, name, describedBy }: FieldProps & { id: string; plain: Schema; describedBy?: string }) {
  const aria = describedBy ? { "aria-describedby": describedBy } : {};
  if (plain.enum)
    return (
      <select id={id} {...aria} value={value === undefined ? "" : JSON.stringify(value)} onChange={(event) => change(event.target.value === "" ? undefined : (JSON.parse(event.target.value) as Json))}>
        {!required && <option value="">default</option>}
        {plain.enum.map((one) => (
          <option key={JSON.stringify(one)} value={JSON.stringify(one)}>
            {String(one)}
          </option>
        ))}
      </select>
    );
  switch (plain.type) {
    case "string":
      return (
        <textarea
          id={id}
          {...aria}
          rows={/text|message|document|context|request/.test(name) ? 5 : 2}
          value={typeof value === "string" ? value : ""}
          required={required}
          onChange={(event) => change(event.target.value === "" && !required ? undefined : event.target.value)}
        />
      );
    case "number":
    case "integer":
      return (
        <input
          id={id}
          {...aria}
          type="number"
          step={plain.type === "integer" ? 1 : "any"}
          required={required}
          value={typeof value === "number" ? value : ""}
          onChange={(event) => change(event.target.value === "" ? undefined : Number(event.target.value))}
        />
      );
    case "boolean":
      return <input id={id} {...aria} type="checkbox" checked={value === true} onChange={(event) => change(event.target.checked)} />;
    case "array": {
      const { schema: items } = resolve(plain.items, root);
      if (isDocument(items)) return <Documents id={id} value={Array.isArray(value) ? value : []} change={change} />;
      if (items.type === "string")
        return (
          <textarea
            id={id}
            {...aria}
            rows={4}
            placeholder="one entry per line"
            value={Array.isArray(value) ? value.join("\n") : ""}
            onChange={(event) => change(event.target.value === "" ? (required ? [] : undefined) : event.target.value.split("\n"))}
          />
        );
      return <JsonField id={id} value={value} change={change} />;
    }
    case "object":
      if (isDocument(plain)) return <Documents id={id} single value={value ? [value] : []} change={(next) => change(Array.isArray(next) ? next[0] : undefined)} />;
      if (plain.properties)
        return (
          <div className="nested" id={id} role="group" aria-label={name}>
            <SchemaForm schema={{ ...plain, ...(root.$defs ? { $defs: root.$defs } : {}) }} value={value !== null && typeof value === "object" && !Array.isArray(value) ? value : {}} change={change} />
          </div>
        );
      return <JsonField id={id} value={value} change={change} />;
    default:
      return <JsonField id={id} value={value} change={change} />;
  }
}

/** Any value as JSON. */
export function JsonField({ id, value, change, rows = 4 }: { id: string; value: Json | undefined; change: (value: Json | undefined) => void; rows?: number }) {
  const [text, setText] = useState(value === undefined ? "" : JSON.stringify(value, null, 2));
  const [wrong, setWrong] = useState("");
  return (
    <>
      <textarea
        id={id}
        className="mono"
        rows={rows}
        value={text}
        placeholder="JSON"
        aria-invalid={wrong !== ""}
        onChange={(event) => {
          setText(event.target.value);
          if (event.target.value.trim() === "") {
            setWrong("");
            change(undefined);
            return;
          }
          try {
            change(JSON.parse(event.target.value) as Json);
            setWrong("");
          } catch (error) {
            setWrong(error instanceof Error ? error.message : "this is not JSON");
          }
        }}
      />
      {wrong && <p className="soft">Not JSON yet: {wrong}</p>}
    </>
  );
}

const MAX_FILE = 5_000_000;

/** Documents: text files of this computer, or texts that are typed in. */
export function Documents({ id, value, change, single = false }: { id: string; value: Json[]; change: (value: Json) => void; single?: boolean }) {
  const [problem, setProblem] = useState("");
  const [over, setOver] = useState(false);
  const add = async (files: Iterable<File>): Promise<void> => {
    const found: Json[] = [];
    setProblem("");
    for (const file of files) {
      if (file.size > MAX_FILE) {
        setProblem(`${file.name} is larger than 5 MB. Cut it into parts.`);
        continue;
      }
      const text = await file.text();
      if (text.includes("\u0000")) setProblem(`${file.name} is not a text file. Convert it to text first.`);
      else found.push({ source: file.name, text });
    }
    change(single ? found.slice(0, 1) : [...value, ...found]);
  };
  const replace = (at: number, part: { source?: string; text?: string }): void =>
    change(value.map((one, index) => (index === at ? { ...(one as { source: string; text: string }), ...part } : one)));
  return (
    <div
      className={`documents${over ? " over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        void add(event.dataTransfer.files);
      }}
    >
      {value.map((one, at) => {
        const document = (one ?? {}) as { source?: string; text?: string };
        return (
          <div className="document" key={at}>
            <div className="form-row">
              <input aria-label={`name of document ${at + 1}`} placeholder="name" value={document.source ?? ""} onChange={(event) => replace(at, { source: event.target.value })} />
              <span className="grow" />
              <button type="button" className="button quiet icon-only" aria-label={`remove document ${at + 1}`} onClick={() => change(value.filter((_, index) => index !== at))}>
                <Icon name="close" size={13} />
              </button>
            </div>
            <textarea aria-label={`text of document ${at + 1}`} rows={3} value={document.text ?? ""} onChange={(event) => replace(at, { text: event.target.value })} />
          </div>
        );
      })}
      {(!single || value.length === 0) && (
        <div className="form-row">
          <label className="button file">
            <Icon name="link" size={13} /> Choose text files
            <input id={id} type="file" multiple={!single} className="hidden" accept=".txt,.md,.csv,.json,.log,.html,text/*" onChange={(event) => {
              void add(event.target.files ?? []);
              event.target.value = "";
            }} />
          </label>
          <button type="button" className="button" onClick={() => change([...value, { source: `text-${value.length + 1}`, text: "" }])}>
            Write a text
          </button>
          <span className="soft">or drop files here</span>
        </div>
      )}
      {problem && (
        <p className="error" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}
