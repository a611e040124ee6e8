import { useEffect, useMemo, useRef, useState } from "react";
import { clock, count, duration, money, plural, tokens } from "../lib/format";
import { oneLine, visible } from "../lib/visible";
import { countElements, kindOf, labelOf, reasonOf, statusOf, type Attempt, type NodeStatus, type RunNode } from "../model/fold";
import { calleeOf } from "../model/graph";
import { evidenceTexts, specOf, type Mark, type RunText } from "../model/texts";
import type { EvidenceItem, Json, NodeSpec, Verdict } from "../model/types";
import { COUNTED, wordsOf } from "../model/words";
import { Exchange } from "../parts/Exchange";
import { Fact } from "../parts/Fact";
import { Icon } from "../parts/Icon";
import { Source } from "../parts/Source";
import { Score, Status } from "../parts/Status";
import { Value } from "../parts/Value";
import { Verdicts } from "../parts/Verdicts";
import { VirtualList } from "../parts/VirtualList";
import { CertificateFigures } from "./Answer";
import { useRun } from "./context";
import { MapBar } from "./Graph";
import { kindIcon } from "./layout";
import { PlanVersions } from "./Plan";
import { QuestionCard } from "./Question";
import { NodeUsage } from "./Usage";

export function NodePanel({ path, version, cursor }: { path: string; version: number; cursor: number | null }) {
  const { fold, record, select, over, actions } = useRun();
  const heading = useRef<HTMLHeadingElement>(null);
  const node = fold.nodes.get(path);
  const spec = useMemo(() => specOf(record.workflows, fold, path), [record.workflows, fold, path]);
  useEffect(() => heading.current?.focus({ preventScroll: true }), [path]);
  const status: NodeStatus = node ? statusOf(node, over, cursor) : "pending";
  return (
    <div className="node-panel" data-version={version}>
      <header className="panel-head">
        <button type="button" className="button quiet" onClick={() => select(null)}>
          <Icon name="chevron" size={12} /> Answer
        </button>
        <span className="grow" />
        {actions && node && over && (
          <button type="button" className="button quiet" onClick={() => actions.fork(path)}>
            <Icon name="branch" size={14} /> Fork from here
          </button>
        )}
        <button type="button" className="button quiet icon-only" aria-label="close the node" onClick={() => select(null)}>
          <Icon name="close" size={14} />
        </button>
      </header>
      <div className="node-title">
        <Icon name={kindIcon(spec)} size={18} />
        <h2 ref={heading} tabIndex={-1} className="mono">
          {oneLine(path, 120)}
        </h2>
        <Status status={status} />
      </div>
      <p className="soft node-sub">
        {[node?.attempts.at(-1)?.name || calleeOf(spec), node && times(node, fold.begin), node && node.usage.calls > 0 ? tokens(node.usage) : ""].filter(Boolean).join(" · ")}
      </p>
      {node && <NodeUsage node={node} />}
      {node ? <NodeBody key={path} node={node} spec={spec} status={status} cursor={cursor} /> : <NotStarted spec={spec} />}
      {spec && <Definition spec={spec} agent={node?.attempts[0]?.name ?? ""} />}
    </div>
  );
}

function times(node: RunNode, begin: number): string {
  const took = node.finished === null ? "" : `, took ${duration(node.finished - node.started)}`;
  return `started ${clock(node.started)} (+${duration(node.started - begin)})${took}`;
}

function NotStarted({ spec }: { spec: NodeSpec | undefined }) {
  const { over } = useRun();
  return (
    <p className="notice">
      {over ? "The run ended without this node: nothing needed its value, or what it reads has no value." : "This node has not started. It waits for the nodes whose values it reads."}
      {spec?.when && (
        <>
          {" "}
          Its condition: <code>{oneLine(spec.when, 300)}</code>
        </>
      )}
    </p>
  );
}

const MEANING: Partial<Record<NodeStatus, string>> = {
  abstained: "Its value is withheld",
  failed: "It failed",
  skipped: "It did not run",
  fallback: "Its own value was not usable, so its fallback was taken",
  interrupted: "It has no outcome",
};

function NodeBody({ node, spec, status, cursor }: { node: RunNode; spec: NodeSpec | undefined; status: NodeStatus; cursor: number | null }) {
  const { record, select, fold } = useRun();
  const reason = reasonOf(node);
  const outcome = node.outcome;
  const origin = outcome && outcome.type !== "value" && "origin" in outcome && outcome.origin && outcome.origin !== node.path && fold.nodes.has(outcome.origin) ? outcome.origin : "";
  const certificate = record.certificates.find((one) => one.node === node.path);
  const accepted = [...node.attempts].reverse().find((one) => one.accepted !== false && !one.error);
  return (
    <>
      {node.questionOpen && node.question && <QuestionCard question={node.question} />}
      {MEANING[status] && (
        <div className={`why-box tone-${wordsOf(status).tone}`}>
          <strong>{MEANING[status]}</strong>
          {reason && <p>{visible(reason)}</p>}
          {node.unansweredReason && <p>{visible(node.unansweredReason)}</p>}
          {origin && (
            <p>
              It began at{" "}
              <button type="button" className="link mono" onClick={() => select(origin)}>
                {oneLine(origin, 80)}
              </button>
            </p>
          )}
        </div>
      )}
      {node.overriddenBy && (
        <div className="why-box tone-person">
          <strong>Given by a person</strong>
          <p>
            {visible(node.overriddenBy.by || "somebody")} set this value{node.overriddenBy.run ? ` in run ${node.overriddenBy.run}` : ""}. No worker produced it and no check accepted it.
          </p>
        </div>
      )}
      {node.correction && (
        <div className="why-box tone-person">
          <strong>Corrected by a person</strong>
          <p>{visible(node.correction.by || "A person")} gave this value after the checks had rejected the model's.</p>
        </div>
      )}
      {node.choiceReason && <p className="notice">{visible(node.choiceReason)}</p>}
      {node.drafts.length > 0 && <PlanVersions node={node} />}
      {outcome?.type === "value" && node.elements === null && (
        <section>
          <h3>
            Output <Score value={outcome.score} />
          </h3>
          <Value value={outcome.value} />
        </section>
      )}
      {certificate && (
        <section className="claim certificate">
          <header>
            <Icon name="shield" />
            <h3>Guarantee</h3>
          </header>
          <p>{visible(certificate.guarantee)}</p>
          <CertificateFigures summary={certificate.summary} />
        </section>
      )}
      {accepted && node.elements === null && <AttemptEvidence node={node} spec={spec} verdicts={accepted.verdicts} value={outcome?.type === "value" ? outcome.value : undefined} title="Evidence" />}
      {node.elements !== null && <Elements node={node} cursor={cursor} />}
      {node.attempts.length > 0 && <Attempts node={node} spec={spec} />}
      {node.elements === null && node.children.length > 0 && (
        <section>
          <h3>Inside</h3>
          <ul className="inside">
            {node.children.slice(0, 100).map((child) => (
              <li key={child.path}>
                <button type="button" className="link mono" onClick={() => select(child.path)}>
                  {oneLine(labelOf(child), 80)}
                </button>
                <span className="soft"> {kindOf(child) === "check" ? "calls of its checks" : (child.attempts.at(-1)?.name ?? "")}</span>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  );
}

/** The texts that the checks compared a value with. Words of passed checks are marked; of failed ones it says that they do not occur. */
function AttemptEvidence({ node, spec, verdicts, value, title }: { node: RunNode; spec: NodeSpec | undefined; verdicts: Verdict[]; value: Json | undefined; title: string }) {
  const { fold, texts } = useRun();
  const shown = useMemo(() => {
    const places = new Map<string, { text: RunText; marks: Mark[] }>();
    const lost: EvidenceItem[] = [];
    const against = evidenceTexts(fold, node, spec);
    for (const text of against) places.set(text.where, { text: texts.get(text.where) ?? text, marks: [] });
    const visit = (one: Verdict): void => {
      for (const item of one.evidence ?? []) {
        const inAgainst = against.find((text) => item.start != null && item.end != null && text.text.slice(item.start, item.end) === item.quote);
        const found = inAgainst ? { text: inAgainst, start: item.start!, end: item.end! } : texts.locate(item);
        if (!found) {
          lost.push(item);
          continue;
        }
        const known = places.get(found.text.where) ?? { text: found.text, marks: [] };
        known.marks.push({ start: found.start, end: found.end, checks: [one.check] });
        places.set(found.text.where, known);
      }
      one.parts?.forEach(visit);
    };
    verdicts.forEach(visit);
    return { places: [...places.values()], lost };
  }, [fold, texts, node, spec, verdicts]);
  if (shown.places.length === 0 && shown.lost.length === 0) return null;
  const failed = verdicts.some((one) => one.outcome !== "pass");
  const marked = shown.places.some((one) => one.marks.length > 0);
  return (
    <section className="evidence">
      <h3>{title}</h3>
      {failed && !marked && <p className="soft">{quotedWords(value) ? "The words that the model quoted do not occur in this text:" : "This is the text that the checks compared the value with:"}</p>}
      {shown.places.slice(0, 12).map(({ text, marks }) => (
        <Source key={text.where} text={text} marks={marks} />
      ))}
      {shown.places.length > 12 && <p className="soft">and {plural(shown.places.length - 12, "more text")}</p>}
      {shown.lost.map((item, index) => (
        <figure className="source" key={index}>
          <figcaption className="source-name">{visible(item.source || "a text that this run does not hold")}</figcaption>
          <blockquote>
            <mark>{visible(item.quote)}</mark>
          </blockquote>
        </figure>
      ))}
    </section>
  );
}

function quotedWords(value: Json | undefined): boolean {
  return value !== null && typeof value === "object" && !Array.isArray(value) && "quote" in value;
}

function attemptTitle(attempt: Attempt, tiers: string[]): string {
  const larger = attempt.tier > 0 ? `escalated to ${tiers[attempt.tier - 1] ?? "the larger model"}` : "";
  return [larger, attempt.model, attempt.server && attempt.server !== "local" ? `on ${attempt.server}` : ""].filter(Boolean).join(" · ");
}

function attemptStatus(attempt: Attempt, over: boolean): { icon: string; word: string; tone: string } {
  if (attempt.error) return { icon: "cross", word: "error", tone: "bad" };
  if (attempt.accepted === false) return { icon: "withheld", word: "rejected", tone: "withheld" };
  if (attempt.accepted) return { icon: "check", word: "accepted", tone: "good" };
  if (attempt.finished !== null) return { icon: "minus", word: "unchecked", tone: "quiet" };
  return over ? { icon: "pause", word: "interrupted", tone: "quiet" } : { icon: "dot", word: "running", tone: "live" };
}

function Attempts({ node, spec }: { node: RunNode; spec: NodeSpec | undefined }) {
  const { over, fold } = useRun();
  const last = node.attempts.length - 1;
  const [chosen, setChosen] = useState<number | null>(null);
  const index = Math.min(chosen ?? last, last);
  const attempt = node.attempts[index];
  const tabs = useRef<(HTMLButtonElement | null)[]>([]);
  if (!attempt) return null;
  return (
    <section>
      <h3>{node.attempts.length > 1 ? plural(node.attempts.length, "attempt") : "Attempt"}</h3>
      {node.attempts.length > 1 && (
        <div
          className="attempt-tabs"
          role="tablist"
          aria-label="attempts"
          onKeyDown={(event) => {
            const to = event.key === "ArrowRight" ? index + 1 : event.key === "ArrowLeft" ? index - 1 : null;
            if (to === null || to < 0 || to > last) return;
            setChosen(to);
            tabs.current[to]?.focus();
            event.preventDefault();
          }}
        >
          {node.attempts.map((one, at) => {
            const state = attemptStatus(one, over);
            return (
              <button
                key={one.number}
                ref={(element) => {
                  tabs.current[at] = element;
                }}
                type="button"
                role="tab"
                id={`attempt-tab-${at}`}
                aria-selected={at === index}
                aria-controls="attempt-panel"
                tabIndex={at === index ? 0 : -1}
                className="attempt-tab"
                onClick={() => setChosen(at)}
              >
                <span className="attempt-number">{one.number}</span>
                <span className={`status small tone-${state.tone}`}>
                  <Icon name={state.icon} size={12} />
                  {state.word}
                </span>
                {one.tier > 0 && <span className="chip up">larger</span>}
              </button>
            );
          })}
        </div>
      )}
      <div id="attempt-panel" className="attempt" {...(node.attempts.length > 1 ? { role: "tabpanel", "aria-labelledby": `attempt-tab-${index}` } : {})}>
        <AttemptBody key={attempt.number} attempt={attempt} node={node} spec={spec} single={node.attempts.length === 1} tiers={fold.start?.tiers ?? []} />
      </div>
    </section>
  );
}

function AttemptBody({ attempt, node, spec, single, tiers }: { attempt: Attempt; node: RunNode; spec: NodeSpec | undefined; single: boolean; tiers: string[] }) {
  const { load, over } = useRun();
  const state = attemptStatus(attempt, over);
  const showValue = attempt.value !== undefined && (attempt.accepted === false || node.outcome?.type !== "value");
  return (
    <>
      <p className="attempt-line">
        {single && (
          <span className={`status small tone-${state.tone}`}>
            <Icon name={state.icon} size={12} />
            {state.word}
          </span>
        )}
        <span>{attemptTitle(attempt, tiers)}</span>
      </p>
      <dl className="facts">
        {attempt.finished !== null && <Fact name="took" value={duration(attempt.finished - attempt.started)} />}
        {(attempt.usage.prompt_tokens ?? 0) > 0 && <Fact name="tokens in" value={count(attempt.usage.prompt_tokens ?? 0)} />}
        {(attempt.usage.cached_tokens ?? 0) > 0 && <Fact name="of them cached" value={count(attempt.usage.cached_tokens ?? 0)} />}
        {(attempt.usage.output_tokens ?? 0) > 0 && <Fact name="tokens out" value={count(attempt.usage.output_tokens ?? 0)} />}
        {(attempt.usage.money ?? 0) > 0 && <Fact name="money" value={money(attempt.usage.money ?? 0)} />}
        {(attempt.usage.resends ?? 0) > 0 && <Fact name="sent again" value={count(attempt.usage.resends ?? 0)} />}
        {attempt.confidence !== null && <Fact name="model's confidence" value={<Score value={attempt.confidence} />} />}
        {attempt.score !== null && <Fact name="score of the checks" value={<Score value={attempt.score} />} />}
      </dl>
      {attempt.reusedFrom && <p className="notice">Reused from run {attempt.reusedFrom}: no call was made.</p>}
      {attempt.escalationReason && <p className="notice">{visible(attempt.escalationReason)}</p>}
      {attempt.error && (
        <div className="why-box tone-bad">
          <strong className="mono">{attempt.error}</strong>
          <p>{visible(attempt.reason)}</p>
          {attempt.hint && <p className="soft">{visible(attempt.hint)}</p>}
          {attempt.frames.length > 0 && <pre className="raw">{attempt.frames.map(visible).join("\n")}</pre>}
        </div>
      )}
      {showValue && (
        <>
          <h4>{attempt.accepted === false ? "Rejected value" : "Value"}</h4>
          <Value value={attempt.value} />
        </>
      )}
      {attempt.verdicts.length > 0 ? (
        <>
          <h4>Checks</h4>
          <Verdicts verdicts={attempt.verdicts} />
        </>
      ) : (
        attempt.finished !== null && !attempt.error && <p className="soft">{spec?.checks?.length ? "Its checks have not ended." : "Nothing checks this value."}</p>
      )}
      {attempt.skippedChecks && <p className="notice">Checks were skipped: {visible(attempt.skippedChecks)}</p>}
      {attempt.accepted === false && <AttemptEvidence node={node} spec={spec} verdicts={attempt.verdicts} value={attempt.value} title="Compared with" />}
      {attempt.accepted === false && attempt.number === node.attempts.at(-1)?.number && node.outcome?.type === "abstained" && <p className="soft">No further attempt was allowed{spec?.otherwise ? ` (otherwise: ${spec.otherwise.join(", ")})` : ""}, so the value is withheld.</p>}
      {(attempt.sent || attempt.received) && (
        <Fold title="Prompt and response">
          <Exchange sent={attempt.sent} received={attempt.received} load={load} />
        </Fold>
      )}
    </>
  );
}

/** A part that is made only when it is opened. */
function Fold({ title, children }: { title: string; children: React.ReactNode }) {
  const [open, setOpen] = useState(false);
  return (
    <div className="fold-part">
      <button type="button" className="unfold" aria-expanded={open} onClick={() => setOpen(!open)}>
        <Icon name="chevron" size={12} />
        {title}
      </button>
      {open && children}
    </div>
  );
}

const ELEMENT_ROW = 30;

function Elements({ node, cursor }: { node: RunNode; cursor: number | null }) {
  const { over, select } = useRun();
  const counts = [...countElements(node, over, cursor)].sort((a, b) => COUNTED.indexOf(a[0]) - COUNTED.indexOf(b[0]));
  const [only, setOnly] = useState<NodeStatus | null>(null);
  const [query, setQuery] = useState("");
  const children = useMemo(() => [...node.children].sort((a, b) => indexOf(a) - indexOf(b)), [node, node.children.length]);
  const shown = children.filter((child) => (only === null || statusOf(child, over, cursor) === only) && (query === "" || String(indexOf(child)) === query.trim() || elementWords(child).toLowerCase().includes(query.toLowerCase())));
  return (
    <section>
      <h3>{plural(node.elements ?? 0, "element")}</h3>
      <MapBar counts={counts} total={node.elements ?? 0} />
      <div className="element-filter" role="group" aria-label="elements by status">
        <button type="button" className="segment" aria-pressed={only === null} onClick={() => setOnly(null)}>
          all {count(node.elements ?? 0)}
        </button>
        {counts
          .filter(([status]) => status !== "pending")
          .map(([status, number]) => (
            <button key={status} type="button" className="segment" aria-pressed={only === status} onClick={() => setOnly(only === status ? null : status)}>
              <span className={`ink tone-${wordsOf(status).tone}`}>
                <Icon name={wordsOf(status).icon} size={12} />
              </span>{" "}
              {count(number)} {wordsOf(status).word}
            </button>
          ))}
        <input type="search" value={query} onChange={(event) => setQuery(event.target.value)} placeholder="number or words" aria-label="find an element by its number or words" />
      </div>
      {shown.length === 0 ? (
        <p className="soft">No element matches.</p>
      ) : (
        <VirtualList
          className="elements"
          count={shown.length}
          rowHeight={ELEMENT_ROW}
          role="list"
          aria-label={`${count(shown.length)} elements`}
          style={{ height: Math.min(shown.length * ELEMENT_ROW, 330) }}
          render={(at, style) => {
            const child = shown[at]!;
            return (
              <div key={child.path} role="listitem" style={style}>
                <button type="button" className="element" onClick={() => select(child.path)}>
                  <span className="mono soft">{child.label}</span>
                  <span className={`ink tone-${wordsOf(statusOf(child, over, cursor)).tone}`}>
                    <Icon name={wordsOf(statusOf(child, over, cursor)).icon} size={13} />
                    <span className="hidden">{wordsOf(statusOf(child, over, cursor)).word}</span>
                  </span>
                  <span className="element-words">{elementWords(child)}</span>
                  <span className="soft">{child.finished === null ? "" : duration(child.finished - child.started)}</span>
                </button>
              </div>
            );
          }}
        />
      )}
    </section>
  );
}

function indexOf(node: RunNode): number {
  return Number(/\d+/.exec(node.label)?.[0] ?? 0);
}

function elementWords(node: RunNode): string {
  const outcome = node.outcome;
  if (outcome?.type === "value") return oneLine(typeof outcome.value === "string" ? outcome.value : JSON.stringify(outcome.value), 160);
  return oneLine(reasonOf(node), 160);
}

function Definition({ spec, agent }: { spec: NodeSpec; agent: string }) {
  const { record } = useRun();
  const name = agent || calleeOf(spec);
  const card = record.cards[name];
  return (
    <section className="definition">
      <Fold title="How this node is defined">
        <Value value={spec as unknown as Json} open={2} />
        {card?.prompt && (
          <>
            <h4>
              Prompt of <span className="mono">{oneLine(name)}</span>
            </h4>
            <pre className="raw">{visible(card.prompt)}</pre>
          </>
        )}
      </Fold>
    </section>
  );
}
