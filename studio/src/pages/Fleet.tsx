import { get } from "../api";
import { dateTime } from "../lib/format";
import { useLoad } from "../lib/load";
import { oneLine, visible } from "../lib/visible";
import type { Json } from "../model/types";
import { Icon } from "../parts/Icon";
import { Empty, Fault, Loading } from "../parts/States";
import { Value } from "../parts/Value";

interface ServerItem {
  name: string;
  kind: string;
  model: string;
  address: string;
  state: string;
  breaker: string;
  in_flight: number;
  waiting: number;
  limit: number;
  error: string;
  reason: string;
  hint: string;
  last_answered: number | null;
  last_failed: number | null;
  supervisor_report: { [key: string]: Json };
  can_serve: boolean;
}

interface FleetReport {
  fleet: string;
  running: boolean;
  can_serve: boolean;
  missing: string[];
  servers: ServerItem[];
  models: Record<string, string[]>;
}

export function Fleet() {
  const found = useLoad<FleetReport>((signal) => get("api/fleet", signal), "fleet", 2000);
  const fleet = found.data;
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <div className="page-head">
        <h1>Fleet</h1>
        {fleet && <span className="mono soft">{oneLine(fleet.fleet)}</span>}
        {fleet && (
          <span className={`status tone-${fleet.can_serve ? "good" : "doubt"}`}>
            <Icon name={fleet.can_serve ? "check" : "question"} size={14} />
            {fleet.can_serve ? "can answer" : "cannot answer everything"}
          </span>
        )}
      </div>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="the fleet" />}
      {fleet && fleet.missing.length > 0 && <p className="error">No server for: {fleet.missing.map((one) => oneLine(one)).join(", ")}. Start the fleet with: orchestra fleet start</p>}
      {fleet && fleet.servers.length === 0 && <Empty title="The fleet has no server">A fleet file names servers. orchestra doctor says which model servers run on this machine.</Empty>}
      <div className="server-cards">
        {fleet?.servers.map((server) => (
          <section className="box" key={server.name} aria-labelledby={`server-${server.name}`}>
            <div className="form-row">
              <h2 id={`server-${server.name}`}>{oneLine(server.name)}</h2>
              <span className={`status small tone-${server.error ? "bad" : server.can_serve ? "good" : "quiet"}`}>
                <Icon name={server.error ? "cross" : server.can_serve ? "check" : "pause"} size={12} />
                {oneLine(server.state || (server.can_serve ? "ready" : "not running"))}
              </span>
            </div>
            <p className="mono soft">
              {oneLine(server.model)} {server.address && `· ${oneLine(server.address)}`}
            </p>
            <div className="load" role="img" aria-label={`${server.in_flight} of at most ${server.limit} requests in flight, ${server.waiting} waiting`}>
              <span style={{ width: `${Math.min(100, (100 * server.in_flight) / Math.max(1, server.limit))}%` }} />
            </div>
            <dl className="facts">
              {(
                [
                  ["in flight", `${server.in_flight} of ${server.limit}`],
                  ["waiting", String(server.waiting)],
                  ["kind", server.kind],
                  ["breaker", server.breaker],
                  ["last answer", server.last_answered ? dateTime(server.last_answered) : "none yet"],
                ] as const
              ).map(([name, value]) => (
                <div className="fact" key={name}>
                  <dt>{name}</dt>
                  <dd>{oneLine(value)}</dd>
                </div>
              ))}
            </dl>
            {(server.error || server.reason) && (
              <p className="error">
                {server.error && <code>{server.error}</code>} {visible(server.reason)} {visible(server.hint)}
              </p>
            )}
            {Object.keys(server.supervisor_report ?? {}).length > 0 && (
              <details className="plain">
                <summary>What its supervisor reports</summary>
                <Value value={server.supervisor_report} open={2} />
              </details>
            )}
          </section>
        ))}
      </div>
      {fleet && Object.keys(fleet.models).length > 0 && (
        <section>
          <h2>Models</h2>
          <table className="list">
            <thead>
              <tr>
                <th scope="col">Name in cards</th>
                <th scope="col">Servers</th>
              </tr>
            </thead>
            <tbody>
              {Object.entries(fleet.models).map(([name, servers]) => (
                <tr key={name}>
                  <td className="mono">{oneLine(name)}</td>
                  <td>{servers.map((one) => oneLine(one)).join(", ")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </main>
  );
}
