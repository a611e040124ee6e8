import { useEffect, useRef, useState } from "react";
import { ApiError, get, getKey, setKey } from "../api";
import { useLoad } from "../lib/load";
import { Icon } from "../parts/Icon";
import { Fault, Loading } from "../parts/States";
import { ThemeSwitch } from "../parts/Theme";
import { useRoute, type Route } from "../route";
import { Agents } from "./Agents";
import { Ask } from "./Ask";
import { Batches } from "./Batches";
import { Compare } from "./Compare";
import { Costs } from "./Costs";
import { Fleet } from "./Fleet";
import { Fork } from "./Fork";
import { RunPage } from "./RunPage";
import { Runs } from "./Runs";
import { Schedules } from "./Schedules";
import { Start } from "./Start";
import { ServerContext, type ServerInfo } from "./server";

const PAGES: [string, string][] = [
  ["runs", "Runs"],
  ["start", "New run"],
  ["ask", "Ask"],
  ["agents", "Agents"],
  ["fleet", "Fleet"],
  ["costs", "Costs"],
  ["batches", "Batches"],
  ["schedules", "Schedules"],
];

export function App() {
  const route = useRoute();
  const [turn, setTurn] = useState(0);
  const server = useLoad<ServerInfo>((signal) => get("api", signal), `server-${turn}`, 15_000);
  const page = route.parts[0] ?? "runs";
  const content = useRef<HTMLDivElement>(null);
  const place = `${page}/${route.parts[1] ?? ""}/${route.parts[2] ?? ""}`;
  const first = useRef(true);
  useEffect(() => {
    const name = PAGES.find(([id]) => id === page)?.[1] ?? "Orchestra";
    document.title = `${route.parts[1] ? `${route.parts[1]} · ` : ""}${name} · Orchestra`;
    if (first.current) first.current = false;
    else content.current?.querySelector<HTMLElement>("main")?.focus({ preventScroll: true });
    // eslint-disable-next-line
  }, [place]);
  const denied = server.error instanceof ApiError && (server.error.status === 401 || server.error.status === 403);
  return (
    <div className="app">
      <a className="skip" href="#content" onClick={(event) => {
        event.preventDefault();
        content.current?.querySelector<HTMLElement>("main")?.focus();
      }}>
        skip to the content
      </a>
      <header className="bar-top">
        <a className="brand" href="#/runs">
          <Icon name="plan" size={18} /> Orchestra
        </a>
        <nav aria-label="pages">
          {PAGES.map(([id, name]) => (
            <a key={id} href={`#/${id}`} {...(page === id ? { "aria-current": "page" as const } : {})}>
              {name}
            </a>
          ))}
        </nav>
        <span className="grow" />
        {server.error instanceof ApiError && server.error.status === 0 && (
          <span className="status tone-doubt" role="status">
            <Icon name="pause" size={14} /> offline
          </span>
        )}
        {server.data?.tenant && <span className="soft tenant">{server.data.tenant}</span>}
        {getKey() && (
          <button
            type="button"
            className="button quiet"
            onClick={() => {
              setKey("");
              setTurn(turn + 1);
            }}
          >
            Forget key
          </button>
        )}
        <ThemeSwitch />
      </header>
      <div className="content" ref={content}>
        {denied ? (
          <KeyForm wrong={getKey() !== ""} done={() => setTurn(turn + 1)} />
        ) : server.data ? (
          <ServerContext.Provider value={server.data}>
            <Page page={page} route={route} />
          </ServerContext.Provider>
        ) : server.error ? (
          <main className="page" id="content" tabIndex={-1}>
            <h1>Orchestra studio</h1>
            <Fault error={server.error} retry={server.reload} />
          </main>
        ) : (
          <Loading what="the studio" />
        )}
      </div>
    </div>
  );
}

function Page({ page, route }: { page: string; route: Route }) {
  const id = route.parts[1] ?? "";
  switch (page) {
    case "runs":
      if (id && route.parts[2] === "fork") return <Fork run={id} route={route} />;
      return id ? <RunPage key={id} run={id} route={route} /> : <Runs route={route} />;
    case "start":
      return <Start name={id} />;
    case "ask":
      return <Ask />;
    case "compare":
      return <Compare route={route} />;
    case "agents":
      return <Agents name={id} />;
    case "fleet":
      return <Fleet />;
    case "costs":
      return <Costs route={route} />;
    case "batches":
      return <Batches id={id} />;
    case "schedules":
      return <Schedules />;
    default:
      return (
        <main className="page" id="content" tabIndex={-1}>
          <h1>There is no such page</h1>
          <p>
            <a href="#/runs">See the runs</a>
          </p>
        </main>
      );
  }
}

function KeyForm({ wrong, done }: { wrong: boolean; done: () => void }) {
  const [key, change] = useState("");
  return (
    <main className="page small" id="content" tabIndex={-1}>
      <h1>This server asks for a key</h1>
      <p className="soft">An administrator makes one with: orchestra serve keys create NAME. The key stays in this tab and is forgotten when you close it.</p>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          setKey(key.trim());
          done();
        }}
      >
        <label htmlFor="key">API key</label>
        <input id="key" type="password" value={key} autoComplete="off" onChange={(event) => change(event.target.value)} required />
        {wrong && (
          <p className="error" role="alert">
            The server did not accept this key. Check it, or ask for another one.
          </p>
        )}
        <button type="submit" className="button primary">
          Continue
        </button>
      </form>
    </main>
  );
}
