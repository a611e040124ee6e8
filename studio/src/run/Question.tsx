import { useId, useState } from "react";
import { dateTime } from "../lib/format";
import { visible } from "../lib/visible";
import type { Json, QuestionAsked } from "../model/types";
import { Icon } from "../parts/Icon";
import { Value } from "../parts/Value";
import { Verdicts } from "../parts/Verdicts";
import { errorWords } from "../api";
import { useRun } from "./context";

/** An open question to a person, with the form that answers it. */
export function QuestionCard({ question }: { question: QuestionAsked }) {
  const { actions, record, select } = useRun();
  const id = useId();
  const kind = question.kind ?? "answer";
  const type = question.schema.type;
  const [value, setValue] = useState(() => (kind === "acceptance" ? JSON.stringify(question.withheld?.value ?? null, null, 2) : ""));
  const [declining, setDeclining] = useState(false);
  const [reason, setReason] = useState("");
  const [by, setBy] = useState("");
  const [state, setState] = useState<"open" | "sending" | "sent">("open");
  const [error, setError] = useState("");
  const send = async (answer: { value?: Json; decline_reason?: string }): Promise<void> => {
    if (!actions) return;
    setState("sending");
    setError("");
    try {
      await actions.answer(question, { ...answer, by });
      setState("sent");
    } catch (failure) {
      setState("open");
      setError(errorWords(failure));
    }
  };
  const submit = (): void => {
    if (declining) return void send({ decline_reason: reason });
    if (type === "string" && kind === "answer") return void send({ value });
    try {
      void send({ value: JSON.parse(value) as Json });
    } catch {
      setError(`This question needs a value of the type ${String(type ?? "JSON")}, written as JSON, such as ${type === "boolean" ? "true" : type === "number" || type === "integer" ? "3" : '{"name": "value"}'}.`);
    }
  };
  return (
    <section className="question" aria-labelledby={`${id}-q`}>
      <header>
        <Icon name="question" size={18} />
        <span>
          {kind === "acceptance" ? "A value was not accepted. A person is asked for the right one" : kind === "effect" ? "It is not known whether this call happened" : "A person is asked"}
          <button type="button" className="link mono" onClick={() => select(question.node)}>
            {question.node}
          </button>
        </span>
        {question.due ? <span className="soft">until {dateTime(question.due)}</span> : null}
      </header>
      <h2 id={`${id}-q`}>{visible(question.question)}</h2>
      {question.withheld && (
        <div className="question-shown">
          <p className="soft">The rejected value{question.withheld.reason ? `: ${visible(question.withheld.reason)}` : ""}</p>
          <Value value={question.withheld.value} />
          {question.withheld.verdicts && <Verdicts verdicts={question.withheld.verdicts} />}
          {question.withheld.evidence?.map((one, index) => (
            <figure className="source" key={index}>
              {one.source && <figcaption className="source-name">{visible(one.source)}</figcaption>}
              <blockquote>{visible(one.text)}</blockquote>
            </figure>
          ))}
        </div>
      )}
      {!actions ? (
        <p className="soft mono">orchestra runs answer {record.run} …</p>
      ) : state === "sent" ? (
        <p className="notice" role="status">
          Sent. The run continues.
        </p>
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            submit();
          }}
        >
          {!declining &&
            (question.options?.length ? (
              <div className="options" role="group" aria-labelledby={`${id}-q`}>
                {question.options.map((option) => (
                  <button key={option} type="button" className="button" disabled={state === "sending"} onClick={() => void send({ value: option })}>
                    {visible(option)}
                  </button>
                ))}
              </div>
            ) : (
              <>
                <label htmlFor={`${id}-v`}>{type === "string" && kind === "answer" ? "Answer" : "Answer, as JSON"}</label>
                <textarea id={`${id}-v`} rows={kind === "acceptance" ? 6 : 2} value={value} onChange={(event) => setValue(event.target.value)} className={type === "string" ? "" : "mono"} />
              </>
            ))}
          {declining && (
            <>
              <label htmlFor={`${id}-r`}>Why you cannot answer</label>
              <textarea id={`${id}-r`} rows={2} value={reason} onChange={(event) => setReason(event.target.value)} />
            </>
          )}
          <div className="form-row">
            <label htmlFor={`${id}-b`}>Your name</label>
            <input id={`${id}-b`} value={by} onChange={(event) => setBy(event.target.value)} autoComplete="name" placeholder="optional" />
            <span className="grow" />
            {kind !== "effect" && (
              <button type="button" className="link" onClick={() => setDeclining(!declining)}>
                {declining ? "answer instead" : "decline"}
              </button>
            )}
            {(declining || !question.options?.length) && (
              <button type="submit" className="button primary" disabled={state === "sending" || (declining && !reason)}>
                {declining ? "Decline" : "Answer"}
              </button>
            )}
          </div>
          {error && (
            <p className="error" role="alert">
              {error}
            </p>
          )}
        </form>
      )}
    </section>
  );
}
