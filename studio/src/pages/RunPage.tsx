import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ApiError, errorWords, followEvents, getText, loadRecord, post } from "../api";
import { RunFold } from "../model/fold";
import type { RunEvent, RunRecord } from "../model/types";
import type { Blob } from "../parts/Exchange";
import { Icon } from "../parts/Icon";
import { Fault, Loading } from "../parts/States";
import { go, type Route } from "../route";
import type { RunActions } from "../run/context";
import { liveStatus, RunView } from "../run/RunView";
import { useMay } from "./server";

interface Live {
  record: RunRecord;
  fold: RunFold;
}

/** A run of the server, live. */
export function RunPage({ run, route }: { run: string; route: Route }) {
  const [live, setLive] = useState<Live | null>(null);
  const [version, setVersion] = useState(0);
  const [link, setLink] = useState<"live" | "lost" | "off">("off");
  const [error, setError] = useState<unknown>(null);
  const [turn, setTurn] = useState(0);
  const [problem, setProblem] = useState("");
  const blobs = useRef(new Map<string, Promise<Blob | null>>());
  const mayRun = useMay("run");
  const mayAnswer = useMay("answer");

  useEffect(() => {
    const control = new AbortController();
    let pending: RunEvent[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const fold = new RunFold();
    const flush = (): void => {
      timer = undefined;
      fold.addAll(pending);
      pending = [];
      setVersion(fold.version);
    };
    const start = async (): Promise<void> => {
      try {
        const record = await loadRecord(run, control.signal);
        fold.addAll(record.events);
        setLive({ record, fold });
        setVersion(fold.version);
        setError(null);
        if (fold.finished !== null) return;
        setLink("live");
        await followEvents(
          run,
          fold.seq,
          (events) => {
            pending.push(...events);
            timer ??= setTimeout(flush, fold.nodes.size > 2000 ? 500 : 120);
          },
          setLink,
          control.signal,
        );
        clearTimeout(timer);
        if (control.signal.aborted) return;
        flush();
        // The claims of the output are computed by the server when the run has ended.
        const ended = await loadRecord(run, control.signal);
        fold.addAll(ended.events);
        setLive({ record: ended, fold });
        setVersion(fold.version);
        setLink("off");
      } catch (failure) {
        if (control.signal.aborted) return;
        setError(failure);
        if (failure instanceof ApiError && failure.status === 0) timer = setTimeout(() => setTurn((known) => known + 1), 3000);
      }
    };
    void start();
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [run, turn]);

  const load = useCallback(
    (digest: string) => {
      const known = blobs.current.get(digest);
      if (known) return known;
      const loading = getText(`api/runs/${encodeURIComponent(run)}/blobs/${digest}`).then(
        (text) => ({ text, size: new TextEncoder().encode(text).length }),
        (failure: unknown) => {
          blobs.current.delete(digest);
          if (failure instanceof ApiError && failure.status === 404) return null;
          throw failure;
        },
      );
      blobs.current.set(digest, loading);
      return loading;
    },
    [run],
  );
  const actions = useMemo<RunActions>(
    () => ({
      async answer(question, answer) {
        await post(`api/runs/${encodeURIComponent(run)}/answers`, {
          node: question.node,
          question_digest: question.question_digest,
          question_seq: question.kind === "effect" ? question.seq : 0,
          ...answer,
        });
      },
      fork: (node) => go(`/runs/${run}/fork?node=${encodeURIComponent(node)}`),
    }),
    [run],
  );
  const selected = route.query.get("node");
  const { set } = route;
  const select = useCallback((path: string | null) => set({ node: path }), [set]);
  if (!live)
    return (
      <main className="page" id="content" tabIndex={-1}>
        {error ? (
          <>
            <h1>Run {run}</h1>
            <Fault error={error} retry={() => setTurn(turn + 1)} />
            <p>
              <a href="#/runs">See all runs</a>
            </p>
          </>
        ) : (
          <Loading what="the run" />
        )}
      </main>
    );
  const { record, fold } = live;
  const status = liveStatus(record, fold);
  const act = async (path: string): Promise<void> => {
    setProblem("");
    try {
      await post(`api/runs/${encodeURIComponent(run)}/${path}`, {});
      if (path === "resume") setTurn(turn + 1);
    } catch (failure) {
      setProblem(errorWords(failure));
    }
  };
  const ended = fold.finished !== null;
  return (
    <RunView
      record={record}
      fold={fold}
      version={version}
      load={load}
      actions={mayAnswer ? actions : null}
      selected={selected}
      select={select}
      live={error instanceof ApiError && error.status === 0 ? "lost" : link}
      notice={
        problem ? (
          <p className="error" role="alert">
            {problem}
          </p>
        ) : null
      }
      toolbar={
        <div className="toolbar">
          {mayRun && !ended && status !== "interrupted" && (
            <button type="button" className="button danger" onClick={() => void act("cancel")}>
              <Icon name="stop" size={14} /> Cancel
            </button>
          )}
          {mayRun && status === "interrupted" && (
            <button type="button" className="button primary" onClick={() => void act("resume")}>
              <Icon name="play" size={14} /> Resume
            </button>
          )}
          {mayRun && ended && (
            <a className="button" href={`#/runs/${run}/fork`}>
              <Icon name="branch" size={14} /> Fork
            </a>
          )}
          <a className="button" href={`#/compare?a=${encodeURIComponent(record.events[0]?.type === "run_started" && record.events[0].parent ? record.events[0].parent : run)}${record.events[0]?.type === "run_started" && record.events[0].parent ? `&b=${encodeURIComponent(run)}` : ""}`}>
            Compare
          </a>
        </div>
      }
    />
  );
}
