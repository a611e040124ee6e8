import { count, duration, money } from "../lib/format";
import { oneLine } from "../lib/visible";
import type { RunNode } from "../model/fold";
import type { Usage as UsageSum } from "../model/types";
import { Fact } from "../parts/Fact";
import { useRun } from "./context";

const MOST = 100;

/** What a run has used: tokens, calls of models, cost and time, in total and by node. */
export function Usage() {
  const { fold, select } = useRun();
  const took = fold.end - fold.begin;
  const nodes = fold.roots.filter((node) => node.usage.calls > 0);
  const without = fold.roots.length - nodes.length;
  return (
    <section aria-labelledby="usage">
      <h2 id="usage">Usage</h2>
      <UsageFacts usage={fold.usage} modelCalls={fold.modelCalls} seconds={fold.begin ? took : null} />
      {nodes.length > 0 && (
        <div className="scroll" tabIndex={0} role="region" aria-label="usage by node">
          <table className="usage-table">
            <thead>
              <tr>
                <th scope="col">node</th>
                <th scope="col">model calls</th>
                <th scope="col">tokens in</th>
                <th scope="col">tokens out</th>
                <th scope="col">cost</th>
                <th scope="col">time</th>
              </tr>
            </thead>
            <tbody>
              {nodes.slice(0, MOST).map((node) => (
                <tr key={node.path}>
                  <th scope="row">
                    <button type="button" className="link mono" onClick={() => select(node.path)}>
                      {oneLine(node.path, 40)}
                    </button>
                  </th>
                  <td>{count(node.modelCalls)}</td>
                  <td>{count(node.usage.prompt_tokens)}</td>
                  <td>{count(node.usage.output_tokens)}</td>
                  <td>{cost(node.usage)}</td>
                  <td>{node.finished === null ? "-" : duration(node.finished - node.started)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {nodes.length > MOST && <p className="soft">and {count(nodes.length - MOST)} more nodes</p>}
      {nodes.length > 0 && without > 0 && <p className="soft">{count(without)} {without === 1 ? "node has" : "nodes have"} made no call.</p>}
    </section>
  );
}

/** What a node has used, with the nodes inside of it. */
export function NodeUsage({ node }: { node: RunNode }) {
  if (node.usage.calls === 0) return null;
  return (
    <section aria-labelledby="node-usage">
      <h3 id="node-usage">Usage</h3>
      <UsageFacts usage={node.usage} modelCalls={node.modelCalls} seconds={node.finished === null ? null : node.finished - node.started} />
    </section>
  );
}

function UsageFacts({ usage, modelCalls, seconds }: { usage: Required<UsageSum>; modelCalls: number; seconds: number | null }) {
  return (
    <dl className="facts usage-facts">
      <Fact name="model calls" value={count(modelCalls)} />
      <Fact name="tokens in" value={count(usage.prompt_tokens)} />
      {usage.cached_tokens > 0 && <Fact name="of them cached" value={count(usage.cached_tokens)} />}
      <Fact name="tokens out" value={count(usage.output_tokens)} />
      <Fact name="cost" value={cost(usage)} />
      {seconds !== null && <Fact name="time" value={duration(seconds)} />}
    </dl>
  );
}

function cost(usage: Required<UsageSum>): string {
  return usage.money > 0 ? money(usage.money) : "0";
}
