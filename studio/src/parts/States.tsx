import { ApiError, errorWords } from "../api";
import { Icon } from "./Icon";

export function Loading({ what }: { what: string }) {
  return (
    <p className="empty" role="status">
      loading {what}…
    </p>
  );
}

/** What went wrong, and what to do next. */
export function Fault({ error, retry }: { error: unknown; retry?: () => void }) {
  const offline = error instanceof ApiError && error.status === 0;
  return (
    <div className="fault" role="alert">
      <Icon name={offline ? "pause" : "cross"} size={18} />
      <div>
        <strong>{offline ? "The server cannot be reached" : error instanceof ApiError && error.status === 404 ? "Not found" : "This could not be loaded"}</strong>
        <p>{offline ? "Check that orchestra serve still runs. This page tries again by itself." : errorWords(error)}</p>
      </div>
      {retry && (
        <button type="button" className="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: React.ReactNode }) {
  return (
    <div className="empty">
      <p>
        <strong>{title}</strong>
      </p>
      {children}
    </div>
  );
}
