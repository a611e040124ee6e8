import { useCallback } from "react";
import type { RunRecord } from "../model/types";
import { Icon } from "../parts/Icon";
import { ThemeSwitch } from "../parts/Theme";
import { useRoute } from "../route";
import { RunView, useFold } from "../run/RunView";

/** One run in one file, without a server. */
export function Exported({ record }: { record: RunRecord }) {
  const fold = useFold(record);
  const route = useRoute();
  const selected = route.query.get("node");
  const load = useCallback((digest: string) => Promise.resolve(record.blobs?.[digest] ?? null), [record]);
  const { set } = route;
  const select = useCallback((path: string | null) => set({ node: path }), [set]);
  return (
    <div className="app exported">
      <header className="bar-top">
        <span className="brand">
          <Icon name="plan" size={18} /> Orchestra
        </span>
        <span className="soft saved">a saved run; this file loads nothing and sends nothing</span>
        <span className="grow" />
        <ThemeSwitch />
      </header>
      <RunView
        record={record}
        fold={fold}
        version={fold.version}
        load={load}
        actions={null}
        selected={selected}
        select={select}
        live="off"
        notice={record.blobs_left_out ? <p className="soft">{record.blobs_left_out} prompts or responses are not in this file.</p> : null}
      />
    </div>
  );
}
