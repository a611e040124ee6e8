import { useCallback, useEffect, useImperativeHandle, useLayoutEffect, useRef, useState, type Ref } from "react";

export interface VirtualListHandle {
  show(index: number): void;
}

/** Rows of one height, of which only those in view are drawn. */
export function VirtualList({
  count,
  rowHeight,
  render,
  className,
  handle,
  children,
  onScroll,
  ...rest
}: {
  count: number;
  rowHeight: number;
  render: (index: number, style: React.CSSProperties) => React.ReactNode;
  className?: string;
  handle?: Ref<VirtualListHandle>;
  children?: React.ReactNode;
  onScroll?: () => void;
} & React.HTMLAttributes<HTMLDivElement>) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const measure = useCallback(() => {
    const element = box.current;
    if (element) setView({ top: element.scrollTop, height: element.clientHeight });
  }, []);
  useLayoutEffect(measure, [measure, count]);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [measure]);
  useImperativeHandle(handle, () => ({
    show(index: number) {
      const element = box.current;
      if (!element) return;
      const top = index * rowHeight;
      if (top < element.scrollTop) element.scrollTop = top;
      else if (top + rowHeight > element.scrollTop + element.clientHeight) element.scrollTop = top + rowHeight - element.clientHeight;
    },
  }));
  const first = Math.max(0, Math.floor(view.top / rowHeight) - 8);
  const last = Math.min(count, Math.ceil((view.top + view.height) / rowHeight) + 8);
  const rows = [];
  for (let index = first; index < last; index++)
    rows.push(render(index, { position: "absolute", top: index * rowHeight, height: rowHeight, left: 0, right: 0 }));
  return (
    <div
      {...rest}
      ref={box}
      className={className}
      onScroll={() => {
        measure();
        onScroll?.();
      }}
    >
      <div className="virtual" role="presentation" style={{ height: count * rowHeight, position: "relative" }}>
        {children}
        {rows}
      </div>
    </div>
  );
}
